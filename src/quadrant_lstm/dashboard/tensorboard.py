"""The run's TensorBoard events, in the run's folder."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping

from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of it: raised inside the queue of TensorBoard's writer, they can leave its
    thread asleep for the two minutes between two flushes, and the run waiting for it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal is raised here
        return
    came: list[int] = []
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    for signum in handlers:
        signal.signal(signum, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    for number in came[:1]:
        signal.raise_signal(number)


class TensorBoard(TensorBoardLogger):
    """Lightning's logger without its version folders, its hp_metric, its curve of the epoch number and its copy of the
    hyperparameters."""

    def __init__(self, save_dir: str):
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    @undisturbed()
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @undisturbed()
    def save(self) -> None:
        """What was logged is safe then. The config is in .hydra."""
        self.experiment.flush()

    @undisturbed()
    def finalize(self, status: str) -> None:
        super().finalize(status)

    def go_on_from(self, step: int) -> None:
        """Points at that step and after are of an epoch that was cut off: TensorBoard is to forget them."""
        start = SessionLog(status=SessionLog.START)
        self.experiment.file_writer.add_event(Event(step=step, session_log=start))

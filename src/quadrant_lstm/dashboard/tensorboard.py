"""The run's TensorBoard events, in the run's folder."""

from collections.abc import Mapping

from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog


class TensorBoard(TensorBoardLogger):
    """Lightning's logger without its version folders, its hp_metric, its curve of the epoch number and its copy of the
    hyperparameters."""

    def __init__(self, save_dir: str):
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    def save(self) -> None:
        """What was logged is safe then. The config is in .hydra."""
        self.experiment.flush()

    def go_on_from(self, step: int) -> None:
        """Points at that step and after are of an epoch that was cut off: TensorBoard is to forget them."""
        start = SessionLog(status=SessionLog.START)
        self.experiment.file_writer.add_event(Event(step=step, session_log=start))

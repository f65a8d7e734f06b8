"""Writes a run's TensorBoard events into the run folder."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from quadrant_lstm.run_folder import OUTPUTS
from quadrant_lstm.signals import signals_deferred


class TensorBoard(TensorBoardLogger):
    """Lightning's logger, without version folders, `hp_metric`, the curve "epoch" and the file hparams.yaml.

    Signals are deferred: an exception raised inside the queue of TensorBoard's writer can leave the writer's thread
    asleep until its next flush, which is up to two minutes later, and the run would wait for it.
    """

    def __init__(self, save_dir: str):
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    @signals_deferred()
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @signals_deferred()
    def save(self) -> None:
        """Flushes the events; unlike Lightning's, it writes no hparams.yaml, because the config is in .hydra/."""
        self.experiment.flush()

    @signals_deferred()
    def finalize(self, status: str) -> None:
        super().finalize(status)

    def start(self, config: dict[str, Any], step: int) -> None:
        """Tells TensorBoard to drop the points at this step and later: they belong to an epoch that was interrupted."""
        start = SessionLog(status=SessionLog.START)
        self.experiment.file_writer.add_event(Event(step=step, session_log=start))

    def add_picture(self, tag: str, pixels: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        # Time Series sorts groups of tags by their names: the curves, of which val/ is the last, come first
        self.experiment.add_image(f"view_{tag}", pixels, step, dataformats="HWC")

    def command_to_view(self) -> str:
        return f"tensorboard --logdir {OUTPUTS}"

    def close(self, status: str) -> None:
        self.finalize(status)

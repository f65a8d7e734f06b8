"""Stops the training when a metric has not improved for some epochs. The epoch that `keep` names is tested."""

import logging
from typing import Any

import lightning.pytorch as pl

from quadrant_lstm.text import counted

log = logging.getLogger(__name__)


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Lightning's, except that a resumed run uses the patience of its config and stops at once if it is exhausted."""

    def __init__(self, monitor: str, patience: int, min_delta: float):
        super().__init__(monitor, min_delta, patience, mode="min" if monitor.endswith("loss") else "max")
        self.ended_training = False

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state | {"patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        trainer.should_stop |= self.is_exhausted

    @property
    def is_exhausted(self) -> bool:
        return self.wait_count >= self.patience

    def results(self) -> dict[str, Any]:
        return {"stopped_early": True} if self.ended_training else {}

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.ended_training = self.is_exhausted and trainer.current_epoch < (trainer.max_epochs or 0)
        if self.ended_training:
            epochs = counted(self.wait_count, "epoch")
            log.info(f"{self.monitor} has not improved for {epochs}; training stops")

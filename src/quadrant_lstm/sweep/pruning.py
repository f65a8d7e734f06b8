"""Reports a trial's monitored metric to Optuna after each epoch; a trial that Optuna prunes ends, and is tested."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from quadrant_lstm.errors import needs_extra

log = logging.getLogger(__name__)


class Pruning(pl.Callback):
    def __init__(self) -> None:
        self.trial: Any = None
        self.pruned = False

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero:  # only this process talks to Optuna
            with needs_extra("trainer.callbacks.pruning", "tune"):
                from quadrant_lstm.sweep.search import running_trial
            self.trial = running_trial(folder)
        self.decide(trainer, trainer.current_epoch)  # repeats the decision before an interruption

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if not trainer.is_last_batch:
            return  # the epoch was stopped, and is trained again
        epoch = trainer.current_epoch + 1
        if self.trial and epoch > last_reported(self.trial):
            self.trial.report(trainer.callback_metrics[trainer.checkpoint_callback.monitor].item(), epoch)
        self.decide(trainer, epoch)

    def decide(self, trainer: pl.Trainer, epochs: int) -> None:
        """Asks Optuna whether to prune after `epochs` epochs, unless a resumed trial has reported a later one, or these
        were all.
        """
        is_open = bool(self.trial) and last_reported(self.trial) == epochs != trainer.max_epochs
        should_prune = is_open and self.trial.should_prune()
        self.pruned = trainer.strategy.broadcast(should_prune)
        trainer.should_stop |= self.pruned

    def results(self) -> dict[str, Any]:
        return {"pruned": True} if self.pruned else {}

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        if self.pruned:
            log.info(f"pruned after epoch {trainer.current_epoch}: other trials were better after as many epochs")


def last_reported(trial: Any) -> int:
    """Returns the last epoch whose metric has been reported, or 0."""
    return max(trial.study.trials[trial.number].intermediate_values, default=0)

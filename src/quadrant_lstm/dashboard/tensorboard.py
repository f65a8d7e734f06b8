"""The run's TensorBoard events, in the run's folder."""

from collections.abc import Mapping

from lightning.pytorch.loggers import TensorBoardLogger


class TensorBoard(TensorBoardLogger):
    """Lightning's logger without its version folders, its hp_metric, its curve of the epoch number and its copy of the
    hyperparameters."""

    def __init__(self, save_dir: str):
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    def save(self) -> None:
        """Everything is in the events; the config is in .hydra."""

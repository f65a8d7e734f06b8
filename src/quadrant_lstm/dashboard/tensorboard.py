"""The run's TensorBoard events, in the run's folder."""

from lightning.pytorch.loggers import TensorBoardLogger


class TensorBoard(TensorBoardLogger):
    """Lightning's logger without its version folders, its hp_metric and its copy of the hyperparameters."""

    def __init__(self, save_dir: str):
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    def save(self) -> None:
        """Everything is in the events; the config is in .hydra."""

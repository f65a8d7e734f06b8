"""A run's config and its final metrics -> a row in TensorBoard's HParams tab, named as on the command line."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

METRICS = ("test/accuracy", "test/loss", "val/accuracy")


def write_hyperparameters(writer: SummaryWriter, cfg: DictConfig, results: dict[str, float]) -> None:
    values = {"seed": cfg.seed, "trainer.max_epochs": cfg.trainer.max_epochs}
    for group in ("data", "model", "optimizer"):
        node: Any = OmegaConf.to_container(cfg[group], resolve=True)
        for name, value in node.items():
            if not name.startswith("_") and value is not None:
                values[f"{group}.{name}"] = value if isinstance(value, int | float | str) else str(value)
    for summary in hparams(values, {name: results[name] for name in METRICS}):
        writer._get_file_writer().add_summary(summary)
    for name in METRICS:  # the values the tab shows are scalars of that name
        writer.add_scalar(name, results[name], results["epochs"])
    writer.flush()

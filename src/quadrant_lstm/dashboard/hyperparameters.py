"""A run's config, or what a sweep gave it of its own, and final metrics -> a row in TensorBoard's HParams tab."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

BEST = "val/best_accuracy"  # the tab shows a curve's last value, and the best epoch need not be the last


def write_hyperparameters(
    writer: SummaryWriter, values: Mapping[str, Any], results: Mapping[str, Any], step: int
) -> None:
    metrics = {name: results[name] for name in ("test/accuracy", "test/loss")} | {BEST: results["val/accuracy"]}
    for summary in hparams(values, metrics):
        writer._get_file_writer().add_summary(summary)
    writer.add_scalar(BEST, results["val/accuracy"], step)  # test/accuracy and test/loss are there already
    writer.flush()


def hyperparameters(cfg: DictConfig) -> dict[str, Any]:
    values = {"seed": cfg.seed, "trainer.max_epochs": cfg.trainer.max_epochs}
    values |= {name: cfg[name] for name in ("label_smoothing", "ema_decay") if cfg[name]}
    for group in ("data", "model", "optimizer", "schedule"):
        node: Any = OmegaConf.to_container(cfg[group], resolve=True)
        for name, value in node.items():
            if not name.startswith("_") and value is not None:
                values[f"{group}.{name}"] = value if isinstance(value, int | float | str) else str(value)
    return values

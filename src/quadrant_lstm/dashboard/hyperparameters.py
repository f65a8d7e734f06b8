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
    """What there is to vary: not what is off, and not what follows another value."""
    values = {"seed": cfg.seed, "trainer.max_epochs": cfg.trainer.max_epochs}
    values |= {name: cfg[name] for name in ("label_smoothing", "ema_decay") if cfg[name]}
    for group in ("data", "model", "optimizer", "schedule"):
        values |= leaves(group, OmegaConf.to_container(cfg[group]))
    return values


def leaves(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        parts = [leaves(f"{key}.{name}", part) for name, part in value.items() if not name.startswith("_")]
        return {name: leaf for part in parts for name, leaf in part.items()}
    off = value is None or (key.startswith("data.augmentation.") and not value)
    if off or (isinstance(value, str) and "${" in value):
        return {}
    return {key: value if isinstance(value, int | float | str) else str(value)}

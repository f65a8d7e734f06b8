"""Writes a run's hyperparameters and final metrics as a row of TensorBoard's HParams tab."""

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


def hyperparameters(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """The keys that the run's sweep varies; of a run by itself all that can be varied, without what is off and what
    follows another value. `choices` are the files chosen for the config's groups.
    """
    if cfg.swept:
        return {key: plain(choices[key] if key in choices else OmegaConf.select(cfg, key)) for key in cfg.swept}
    values = {"seed": cfg.seed, "trainer.max_epochs": cfg.trainer.max_epochs}
    values |= {"label_smoothing": cfg.label_smoothing} if cfg.label_smoothing else {}
    values |= leaves("trainer.callbacks.ema.decay", OmegaConf.select(cfg, "trainer.callbacks.ema.decay"))
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
    return {key: plain(value)}


def plain(value: Any) -> int | float | str:
    return value if isinstance(value, int | float | str) else str(value)

"""Writes a run's hyperparameters and final metrics as a row of TensorBoard's HParams tab."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

BEST_ACCURACY = "val/best_accuracy"  # of its own, because the tab shows the last value of a curve


def write_hyperparameters(
    writer: SummaryWriter, values: Mapping[str, Any], results: Mapping[str, Any], step: int
) -> None:
    metrics = {"test/accuracy": results["test/accuracy"], "test/loss": results["test/loss"]}
    metrics[BEST_ACCURACY] = results["val/accuracy"]
    for summary in hparams(values, metrics):
        writer._get_file_writer().add_summary(summary)
    writer.add_scalar(BEST_ACCURACY, results["val/accuracy"], step)  # the test has written the others
    writer.flush()


def hyperparameters(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """Returns the values of the keys that the run's sweep varies; without a sweep, of all keys that are neither turned
    off nor interpolated from another key. `choices` are the chosen options of the config groups.
    """
    if cfg.swept:
        return {key: as_hparam(choices[key] if key in choices else OmegaConf.select(cfg, key)) for key in cfg.swept}
    values = {"seed": cfg.seed, "trainer.max_epochs": cfg.trainer.max_epochs}
    values |= {"label_smoothing": cfg.label_smoothing} if cfg.label_smoothing else {}
    values |= leaves("trainer.callbacks.ema.decay", OmegaConf.select(cfg, "trainer.callbacks.ema.decay"))
    for group in ("data", "model", "optimizer", "schedule"):
        values |= leaves(group, OmegaConf.to_container(cfg[group]))
    return values


def leaves(key: str, value: Any) -> dict[str, Any]:
    """Flattens nested dicts into dotted keys, and leaves out `_target_` and its like."""
    if isinstance(value, dict):
        parts = [leaves(f"{key}.{name}", part) for name, part in value.items() if not name.startswith("_")]
        return {name: leaf for part in parts for name, leaf in part.items()}
    is_off = value is None or (key.startswith("data.augmentation.") and not value)
    if is_off or (isinstance(value, str) and "${" in value):
        return {}
    return {key: as_hparam(value)}


def as_hparam(value: Any) -> int | float | str:
    return value if isinstance(value, int | float | str) else str(value)

"""Converts the config of a run made by version 0.1 to the current keys, so that it can be read and resumed."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

RENAMED_CLASSES = {
    "quadrant_lstm.run.progress.Progress": "quadrant_lstm.callbacks.progress.Progress",
    "quadrant_lstm.run.ddp.DDP": "quadrant_lstm.processes.strategy.DDP",
}


def upgrade(cfg: DictConfig) -> DictConfig:
    """Replaces the root key `ema_decay` of version 0.1, and lists the callbacks that its config did not list."""
    if "ema_decay" not in cfg or not isinstance(cfg.get("trainer"), DictConfig):
        return cfg
    config: Any = rename_classes(OmegaConf.to_container(cfg))
    config["trainer"]["callbacks"] = {
        "finite": {"_target_": "quadrant_lstm.callbacks.finite.Finite"},
        "reseed": {"_target_": "quadrant_lstm.callbacks.reseed.Reseed", "seed": "${seed}"},
        "ema": {"_target_": "quadrant_lstm.callbacks.ema.EMA", "decay": config.pop("ema_decay")},
        **(config["trainer"].get("callbacks") or {}),
        "best": {"_target_": "quadrant_lstm.callbacks.epoch_end.Best"},
        "epoch_end": {"_target_": "quadrant_lstm.callbacks.epoch_end.EpochEnd"},
    }
    return OmegaConf.create(config | {"swept": None})


def rename_classes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rename_classes(child) for key, child in value.items()}
    return RENAMED_CLASSES.get(value, value) if isinstance(value, str) else value

"""Brings the config of a run made by version 0.1 to today's keys, so that old runs can be read and resumed."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

MOVED = {
    "quadrant_lstm.run.progress.Progress": "quadrant_lstm.callbacks.progress.Progress",
    "quadrant_lstm.run.ddp.DDP": "quadrant_lstm.processes.strategy.DDP",
}


def upgraded(cfg: DictConfig) -> DictConfig:
    """Version 0.1 had the root key `ema_decay`, and callbacks that were not listed."""
    if "ema_decay" not in cfg or not isinstance(cfg.get("trainer"), DictConfig):
        return cfg
    config: Any = moved(OmegaConf.to_container(cfg))
    config["trainer"]["callbacks"] = {
        "finite": {"_target_": "quadrant_lstm.callbacks.finite.Finite"},
        "reseed": {"_target_": "quadrant_lstm.callbacks.reseed.Reseed", "seed": "${seed}"},
        "ema": {"_target_": "quadrant_lstm.callbacks.ema.EMA", "decay": config.pop("ema_decay")},
        **(config["trainer"].get("callbacks") or {}),
        "best": {"_target_": "quadrant_lstm.callbacks.epoch_end.Best"},
        "epoch_end": {"_target_": "quadrant_lstm.callbacks.epoch_end.EpochEnd"},
    }
    return OmegaConf.create(config | {"swept": None})


def moved(value: Any) -> Any:
    """The same with the new names of classes that have moved."""
    if isinstance(value, dict):
        return {key: moved(child) for key, child in value.items()}
    return MOVED.get(value, value) if isinstance(value, str) else value

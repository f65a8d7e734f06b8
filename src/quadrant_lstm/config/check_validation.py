"""Refuses what needs validation samples in a config that holds none out. Imports no torch."""

from omegaconf import DictConfig

from quadrant_lstm.errors import UserError


def check_validation(cfg: DictConfig) -> None:
    key = "validation_share" if "validation_share" in cfg.data else "validation_images"
    if cfg.data[key] != 0 or cfg.data.fold is not None:
        return
    callbacks = cfg.trainer.callbacks
    for name, callback in callbacks.items():
        if str(monitor := callback.get("monitor")).startswith("val/"):
            raise UserError(
                f"data.{key}: 0, but trainer.callbacks.{name}.monitor={monitor} needs validation samples; hold some "
                "out, or monitor train/loss."
            )
    kind = "search" if "pruning" in callbacks else "sweep"
    if compared := [key for key in cfg.get("swept") or () if key != "seed" or kind == "search"]:
        raise UserError(
            f"data.{key}: 0, but a {kind} over {', '.join(compared)} ranks its jobs by val/accuracy; hold some samples "
            "out, or sweep only the seed."
        )

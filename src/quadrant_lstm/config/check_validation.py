"""Refuses what needs validation samples in a config that holds none out. Imports no torch."""

from omegaconf import DictConfig, OmegaConf

from quadrant_lstm.errors import UserError

REPETITIONS = ("seed", "data.fold")  # keys whose values a sweep does not compare


def check_validation(cfg: DictConfig) -> None:
    key = "validation_share" if "validation_share" in cfg.data else "validation_images"
    if cfg.data[key] != 0 or cfg.data.fold is not None:
        return
    monitor = OmegaConf.select(cfg, "trainer.callbacks.early_stopping.monitor") or ""
    if monitor.startswith("val/"):
        raise UserError(
            f"data.{key}: 0, but trainer.callbacks.early_stopping.monitor={monitor} needs validation "
            "samples; hold some out, or monitor train/loss."
        )
    if compared := [key for key in cfg.get("swept") or () if key not in REPETITIONS]:
        raise UserError(
            f"data.{key}: 0, but a sweep over {', '.join(compared)} ranks its jobs by val/accuracy; hold "
            "some samples out, or sweep only the seed."
        )

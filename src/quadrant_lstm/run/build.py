"""A run's config -> its data, its network in a Classifier, and a Trainer."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from quadrant_lstm.callbacks.checkpoint_io import WholeCheckpoints
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.data.frames import Shape
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.run.precision import resolve


def build(group: str, node: DictConfig | dict[str, Any], **arguments: Any) -> Any:
    """Instantiate a node of the config; raises UserError where its values do not go together."""
    try:
        return instantiate(node, **arguments, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, MisconfigurationException | ValueError):
            raise UserError(
                f"{group}: {error.__cause__}; change a value of {group} (python train.py --cfg job shows all)."
            ) from error
        raise


def build_data(cfg: DictConfig) -> SequenceDataModule:
    return build("data", cfg.data)


def build_network(cfg: DictConfig, frame_shape: Shape, num_classes: int) -> nn.Module:
    arguments = {"frame_shape": frame_shape, "num_classes": num_classes, "orderings": cfg.data.orderings}
    return build("model", cfg.model, **arguments)


def build_classifier(cfg: DictConfig, frame_shape: Shape, num_classes: int) -> Classifier:
    network = build_network(cfg, frame_shape, num_classes)
    optimizer, schedule = build("optimizer", cfg.optimizer), build("schedule", cfg.schedule)
    return Classifier(network, optimizer, schedule, frame_shape, num_classes, cfg.label_smoothing)


def build_trainer(cfg: DictConfig, folder: Path) -> pl.Trainer:
    """conf/trainer names loggers and callbacks, so that an override can reach each; Lightning takes lists of them.

    The callbacks find the run folder as the trainer's `default_root_dir`.
    """
    named = {name: list(build("trainer", cfg.trainer.get(name) or {}).values()) for name in ("logger", "callbacks")}
    others = OmegaConf.masked_copy(cfg.trainer, [str(key) for key in cfg.trainer if key not in named])
    if isinstance(others.get("strategy"), DictConfig) and num_processes(cfg) == 1:
        others.strategy = "auto"
    return build(
        "trainer",
        others,
        precision=resolve(cfg.trainer.precision, cfg.trainer.get("accelerator", "auto")),
        plugins=[WholeCheckpoints()],
        default_root_dir=folder,
        **named,
    )


def num_processes(cfg: DictConfig) -> int:
    """One per device, as Lightning counts the devices of trainer.devices and trainer.num_nodes."""
    where = OmegaConf.masked_copy(cfg.trainer, ["_target_", "accelerator", "devices", "num_nodes"])
    return build("trainer", where, logger=False, enable_checkpointing=False, enable_progress_bar=False).world_size

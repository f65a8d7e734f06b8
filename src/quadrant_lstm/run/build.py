"""A run's config -> its data, its network in a Classifier, and a Trainer."""

from typing import Any

import lightning.pytorch as pl
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.model.geometry import Shape


def build(group: str, node: DictConfig, **arguments: Any) -> Any:
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
    return build("model", cfg.model, frame_shape=frame_shape, num_classes=num_classes)


def build_classifier(cfg: DictConfig, frame_shape: Shape, num_classes: int) -> Classifier:
    network = build_network(cfg, frame_shape, num_classes)
    return Classifier(network, build("optimizer", cfg.optimizer), frame_shape, num_classes)


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """conf/trainer names its loggers and callbacks, so that an override can reach each; Lightning takes lists."""
    named = {name: cfg.trainer[name] for name in ("logger", "callbacks") if isinstance(cfg.trainer[name], DictConfig)}
    lists = {name: list(build("trainer", node).values()) for name, node in named.items()}
    others = OmegaConf.masked_copy(cfg.trainer, [name for name in cfg.trainer if name not in named])
    return build("trainer", others, **lists)

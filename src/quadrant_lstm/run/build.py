"""Builds the parts of a run from its config: the data, the network in a Classifier, and the Trainer."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from quadrant_lstm.callbacks.checkpoints import AtomicCheckpointIO
from quadrant_lstm.config.signatures import takes
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.data.orderings import SequenceSpec, orderings_of
from quadrant_lstm.errors import UserError, place_in_own_code, with_type
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.run.precision import resolve_precision


def instantiate_node(group: str, node: DictConfig | dict[str, Any], **arguments: Any) -> Any:
    """Instantiates a node of the config. Raises UserError if the class rejects its values."""
    try:
        return instantiate(node, **arguments, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if cause and (place := place_in_own_code(cause)):
            raise UserError(f"{group}: {place}{with_type(cause)}") from error
        if isinstance(
            cause, MisconfigurationException | ValueError | TypeError | RuntimeError | AssertionError | ImportError
        ):
            reason = str(cause).partition("\n")[0].rstrip(".!")
            raise UserError(f"{group}: {reason}; change a value of {group}.") from error
        raise


def build_data(cfg: DictConfig) -> SequenceDataModule:
    return instantiate_node("data", cfg.data)


def build_network(cfg: DictConfig, spec: SequenceSpec) -> nn.Module:
    """Passes those of the five arguments below that the class takes; grid and orderings are None for clips."""
    grid = tuple(cfg.data.grid) if "grid" in cfg.data else None
    orderings = orderings_of(cfg.data.orderings, grid) if grid else None
    known = {"frame_shape": spec.frame_shape, "num_classes": spec.num_classes, "num_steps": spec.num_steps}
    known |= {"orderings": orderings, "grid": grid}
    network_class = get_class(cfg.model._target_)
    arguments = {name: value for name, value in known.items() if takes(network_class, name)}
    network = instantiate_node("model", cfg.model, **arguments)
    if not isinstance(network, nn.Module):
        name, remedy = cfg.model._target_, "derive the class from torch.nn.Module, and leave out _partial_"
        raise UserError(f"model: {name} did not make an nn.Module; {remedy}.")
    return network


def build_classifier(cfg: DictConfig, spec: SequenceSpec) -> Classifier:
    network = build_network(cfg, spec)
    optimizer, schedule = instantiate_node("optimizer", cfg.optimizer), instantiate_node("schedule", cfg.schedule)
    return Classifier(network, optimizer, schedule, spec, cfg.label_smoothing)


def build_trainer(cfg: DictConfig, folder: Path) -> pl.Trainer:
    """Builds the Trainer. The callbacks find the run folder as its `default_root_dir`.

    conf/trainer gives loggers and callbacks names, so that overrides can change them; Lightning takes lists.
    """
    config: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    for key in ("logger", "callbacks"):
        config[key] = list(instantiate_node("trainer", config.get(key) or {}).values())
    if isinstance(config.get("strategy"), dict) and bare_trainer(cfg).world_size == 1:
        config["strategy"] = "auto"
    config["precision"] = resolve_precision(cfg.trainer.precision, config.get("accelerator", "auto"))
    return instantiate_node("trainer", config | {"plugins": [AtomicCheckpointIO()], "default_root_dir": folder})


def num_processes_to_launch(cfg: DictConfig) -> int:
    """Returns how many processes this one has to start: none for one device, or if SLURM or `launch` started this one.

    Raises UserError for several nodes without SLURM.
    """
    trainer = bare_trainer(cfg)
    if trainer.world_size == 1 or trainer.strategy.cluster_environment.creates_processes_externally:
        return 0
    if trainer.num_nodes > 1:
        raise UserError(
            f"trainer.num_nodes: {trainer.num_nodes} machines need torchrun, whose command runs on each of them, or "
            "SLURM: add -m hydra/launcher=submitit_slurm."
        )
    return trainer.num_devices


def bare_trainer(cfg: DictConfig) -> Any:
    """Builds a Trainer that knows its devices, each of which has one process, and nothing else. Does not use CUDA."""
    devices = OmegaConf.masked_copy(cfg.trainer, ["_target_", "accelerator", "devices", "num_nodes"])
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return instantiate_node("trainer", devices, **options)

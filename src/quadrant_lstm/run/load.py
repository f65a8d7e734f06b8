"""A run folder -> the trained network and its config."""

import pickle
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from yaml import YAMLError

from quadrant_lstm.config.check import check_values
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.run.build import build_classifier
from quadrant_lstm.run.folder import BEST, CONFIG, find_run


def load_run(path: str | Path) -> tuple[nn.Module, DictConfig]:
    """The network of a run's best epoch, on the CPU and set to eval, and the config it was made from.

        network, cfg = load_run("outputs/2026-11-24/23-59-05")
        logits = network(sequences(images, cfg.data.orderings))    # images: float in [0, 1]

    Raises UserError if the folder holds no run, or no epoch has finished.
    """
    classifier, cfg = load_classifier(find_run(str(path)))
    return classifier.network.eval(), cfg


def load_classifier(folder: Path) -> tuple[Classifier, DictConfig]:
    cfg = read_config(folder / CONFIG)
    checkpoint = read_checkpoint(folder / BEST)
    try:
        classifier = build_classifier(cfg, **checkpoint["hyper_parameters"])
        classifier.load_state_dict(checkpoint["state_dict"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{folder / BEST}: does not fit {folder / CONFIG} ({error}); restore one of them.") from error
    return classifier, cfg


def read_config(file: Path) -> DictConfig:
    try:
        cfg = OmegaConf.load(file)
    except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); restore it.") from error
    if not isinstance(cfg, DictConfig) or "model" not in cfg:
        raise UserError(f"{file}: is not the config of a run; give a folder that train.py made.")
    check_values(cfg)
    return cfg


def read_checkpoint(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(
            f"{file}: is missing: no epoch of this run has finished; go on with: "
            f"python train.py run={file.parent.parent}"
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{file}: cannot be read ({reason}); it is damaged: train again, or restore it.") from error

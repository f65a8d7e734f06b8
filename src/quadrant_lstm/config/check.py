"""Checks a config: its keys and values, the images it names, and whether the sizes fit.

Raises UserError that names the key. config/signatures.py checks what needs the classes of torch and Lightning.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from quadrant_lstm.config.check_classes import check_download, check_node, check_trust, nodes_with_target
from quadrant_lstm.config.check_data import DATA_CHECKS, check_orderings
from quadrant_lstm.config.check_validation import check_validation
from quadrant_lstm.config.check_value import check_keys
from quadrant_lstm.config.interpolations import resolve_interpolations
from quadrant_lstm.config.messages import missing_key
from quadrant_lstm.config.schema import GROUPS, REQUIRED, ROOT
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.sizes import CHECKS


def check_without_torch(cfg: DictConfig) -> None:
    """Checks a config that train.py composed."""
    check_keys_and_values(cfg)
    check_validation(cfg)
    check_fit(cfg)


def check_keys_and_values(cfg: DictConfig, trust: Sequence[str] | None = None) -> None:
    """Checks keys and values. `trust` is None for a config that was typed or is in conf/: it may name any class."""
    config = resolve_interpolations(cfg, trusted=trust is None)
    check_keys(config, ROOT, GROUPS)
    for group in GROUPS:
        if not isinstance(config.get(group), dict) or "_target_" not in config[group]:
            raise UserError(f"{group}: is missing; choose a file of conf/{group}/ with {group}=NAME.")
    for path, node in nodes_with_target(config):
        check_node(path, node)
    if trust is not None:
        check_trust(config, trust)
        check_download(config, trust)
    check_orderings(config["data"])
    for key in REQUIRED:
        if OmegaConf.select(cfg, key) is None:
            raise missing_key(key)
    check_precision(config)


def check_precision(config: Mapping[str, Any]) -> None:
    """Raises UserError if the average of the weights or gradient clipping cannot work at this precision."""
    trainer, precision = config["trainer"], config["trainer"]["precision"]
    average = trainer.get("callbacks", {}).get("ema", {}).get("decay")
    if average is not None and precision in ("bf16-true", "16-true"):
        raise UserError(
            f"trainer.callbacks.ema.decay: {average} needs finer steps than trainer.precision={precision} "
            "has; write trainer.precision=bf16-mixed, or ema.decay=null."
        )
    clip = trainer.get("gradient_clip_val")
    if clip and config["optimizer"].get("fused") and (precision == "auto" or precision.endswith("-mixed")):
        raise UserError(
            f"trainer.gradient_clip_val: {clip} cannot be combined with a fused optimizer "
            f"at trainer.precision={precision}; add optimizer.fused=false."
        )


def check_fit(cfg: DictConfig) -> None:
    """Checks that data and network fit together. Data sets that are downloaded are checked when training starts."""
    config = resolve_interpolations(cfg, trusted=True)
    data, model = config["data"], config["model"]
    frame_shape = DATA_CHECKS[data["_target_"]](data)
    if model["_target_"] in CHECKS:
        CHECKS[model["_target_"]](model, data, frame_shape)

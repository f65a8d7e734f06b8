"""A composed config -> nothing, or a UserError that names the key. Imports no torch.

A node with a `_target_` may hold what that class takes, in the kinds that config/keys.py names, or else its signature
(config/signature.py). Images are read too, and laid through the encoder's stages.
"""

import difflib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from quadrant_lstm.config.defaults import default_value
from quadrant_lstm.config.interpolations import resolved
from quadrant_lstm.config.keys import GIVEN_BY_CODE, GROUPS, KEEP_THE_RUN_FOLDER, KINDS, REQUIRED, ROOT, TARGETS
from quadrant_lstm.config.old_runs import upgraded
from quadrant_lstm.config.signature import signature
from quadrant_lstm.data.frames import frame_shape_of
from quadrant_lstm.data.sources import load_images
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import in_words
from quadrant_lstm.model.geometry import encoder_stages, pooled_shape
from quadrant_lstm.run_folder import BEST, CONFIG, find_run, read_yaml


def check(cfg: DictConfig) -> None:
    """What train.py composed: keys, values, data, and whether the sizes fit."""
    check_values(cfg)
    check_sizes(cfg)


def without_hydra(composed: DictConfig) -> DictConfig:
    """What the task gets of it."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def read_config(file: Path) -> DictConfig:
    """The config of a run, which may be anybody's, checked."""
    cfg = read_yaml(file)
    if not isinstance(cfg, DictConfig) or "model" not in cfg:
        raise UserError(f"{file}: is not the config of a run; give a folder that train.py made.")
    cfg = upgraded(cfg)
    try:
        check_values(cfg, trusted=False)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return cfg


def trained_run(run: str | None) -> Path:
    """The folder that `run=` means, with a network in it and a config that can be read."""
    folder = find_run(run, BEST)
    read_config(folder / CONFIG)
    return folder


def check_keys(config: Mapping[str, Any], kinds: Mapping[str, Any], groups: Iterable[str] = ()) -> None:
    for key, value in config.items():
        if key in kinds:
            check_value(key, value, kinds[key])
        elif key not in groups:
            raise unknown_key(key, [*kinds, *groups])


def check_values(cfg: DictConfig, trusted: bool = True) -> None:
    """`trusted` is what the user typed or keeps in conf/, rather than what came with a run folder."""
    config = resolved(cfg, trusted)
    check_keys(config, ROOT, GROUPS)
    for group in GROUPS:
        if not isinstance(config.get(group), dict) or "_target_" not in config[group]:
            raise UserError(f"{group}: is missing; choose one of conf/{group}/, e.g. with {group}=NAME.")
    for path, node in nodes_with_target(config):
        check_node(path, node)
    trainer = config["trainer"]
    for name in KEEP_THE_RUN_FOLDER:
        if name not in trainer["callbacks"]:
            raise UserError(f"trainer.callbacks.{name}: is missing, and it keeps the run folder; do not remove it.")
    clip, precision = trainer.get("gradient_clip_val"), str(trainer.get("precision"))
    if clip and config["optimizer"].get("fused") and (precision == "auto" or precision.endswith("-mixed")):
        raise UserError(
            f"trainer.gradient_clip_val: {clip}, but with trainer.precision={precision} "
            "a fused optimizer does not clip; add optimizer.fused=false."
        )


def check_sizes(cfg: DictConfig) -> None:
    for key in ("train_orderings", "test_orderings"):
        check_pool(key, cfg.data.get(key), len(cfg.data.orderings), bool(cfg.model.get("shared_tiles", True)))
    if cfg.data.dataset not in ("mnist", "idx"):
        return  # it may have to be downloaded first
    images = load_images(cfg.data.dataset, cfg.data.root)
    images.check_split(cfg.data.validation_images)
    frame_shape = frame_shape_of(images.image_shape, len(cfg.data.orderings))
    if "blocks" in cfg.model:
        pooled_shape(frame_shape_of(images.image_shape, 1), cfg.model.blocks)
    if {"filters", "kernel_size", "pool_size"} <= cfg.model.keys():
        encoder_stages(frame_shape, cfg.model.filters, cfg.model.kernel_size, cfg.model.pool_size)


def check_pool(key: str, pool: list[Any] | None, num_stacked: int, shared: bool) -> None:
    if pool and len(pool) % num_stacked:
        raise UserError(f"data.{key}: {len(pool)}, but a frame stacks {num_stacked} of them; write a multiple of that.")
    if pool and num_stacked > 1 and shared:
        raise UserError(
            f"data.{key}: a frame stacks {num_stacked}, and this network is made for those of data.orderings; write "
            "one there, e.g. data.orderings=[[1,2,3,4]], or model=cnn_lstm model.shared_tiles=false."
        )


def nodes_with_target(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, child in node.items():
            yield from nodes_with_target(child, f"{path}.{key}" if path else key)


def check_node(path: str, node: Mapping[str, Any]) -> None:
    target = node["_target_"]
    allowed = TARGETS[path.partition(".")[0]]
    if not str(target).startswith(allowed):
        raise UserError(f"{path}._target_: {target} is not among {'*, '.join(allowed)}*; name a class of these.")
    try:
        parameters = signature(target)
    except LookupError:
        raise UserError(f"{path}._target_: there is no class {target}; correct the name.") from None
    known = [name for name in parameters if name not in GIVEN_BY_CODE or name in node]
    for name in known:
        if name not in node and (parameters[name].required or f"{path}.{name}" in REQUIRED):
            raise missing(f"{path}.{name}")
    unknown = [name for name in node if name not in known and "**" not in known and not name.startswith("_")]
    if unknown:
        raise not_taken(path, target, unknown, known)
    for name, value in node.items():
        key = f"{path}.{name}"
        if name.startswith("_"):
            continue
        check_value(key, value, KINDS.get(key, parameters[name].kind if name in parameters else Any))


def not_taken(path: str, target: str, unknown: list[str], known: Iterable[str]) -> UserError:
    """Keys that conf/ gives are to be removed, those that the user typed to be corrected."""
    given = [name for name in unknown if default_value(f"{path}.{name}") is not None]
    if given != unknown:
        wrong = next(name for name in unknown if name not in given)
        return unknown_key(f"{path}.{wrong}", [f"{path}.{other}" for other in known])
    return UserError(
        f"{path}.{given[0]}: {target} takes no {' and no '.join(given)}; "
        f"remove with {' '.join(f'~{path}.{name}' for name in given)}."
    )


def check_value(key: str, value: Any, kind: Any) -> None:
    if value == "???":
        raise missing(key)
    if isinstance(value, dict):
        for name in value if f"{key}.*" in KINDS else ():
            check_value(f"{key}.{name}", value[name], KINDS[f"{key}.*"])
        return
    try:
        adapter = TypeAdapter(kind)
    except PydanticUserError:
        return  # a type of the target's own, which the target checks itself
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError:
        raise UserError(f"{key}: {value!r} is not {in_words(kind)}; write {example(key)}.") from None


def missing(key: str) -> UserError:
    return UserError(f"{key}: is missing; add {example(key)}.")


def example(key: str) -> str:
    default = default_value(key)
    if isinstance(default, DictConfig):
        return f"{key}.KEY=VALUE"
    # without the spaces of a list, at which a shell would cut it
    return f"{key}=VALUE" if default is None else f"e.g. {key}={default}".replace(", ", ",")


def unknown_key(key: str, known: Iterable[str]) -> UserError:
    """Names the nearest key beside it, or one that ends as it does: optimizer.lr for lr."""
    known = [other for other in known if "._" not in other]
    group, _, name = key.rpartition(".")
    beside = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == group}
    near = [beside[other] for other in difflib.get_close_matches(name, beside, n=1, cutoff=0.5)]
    near = near or [other for other in known if other.endswith(f".{name}")]
    near = near or difflib.get_close_matches(key, [] if beside else known, n=1, cutoff=0.5)
    if near:
        remedy = f"did you mean {near[0]}?"
    elif 0 < len(beside) <= 20:
        remedy = f"known here: {', '.join(beside.values())}."
    else:
        remedy = f"python {sys.argv[0]} --cfg job shows those there are."
    return UserError(f"{key}: there is no such key; {remedy}")

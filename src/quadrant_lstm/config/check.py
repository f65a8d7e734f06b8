"""Checks a config: its keys and values, the images it names, and whether the sizes fit. Imports no torch.

Raises UserError that names the key. config/signatures.py checks what needs the classes of torch and Lightning.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from quadrant_lstm.config.check_data import DATA_CHECKS, check_orderings
from quadrant_lstm.config.check_validation import check_validation
from quadrant_lstm.config.interpolations import resolve_interpolations
from quadrant_lstm.config.messages import example, missing_key, unknown_arguments, unknown_key
from quadrant_lstm.config.old_runs import upgrade
from quadrant_lstm.config.schema import CLASSES, GROUPS, LIBRARIES, REQUIRED, ROOT, TARGETS
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_yaml
from quadrant_lstm.kinds import Node, in_words
from quadrant_lstm.model.sizes import CHECKS
from quadrant_lstm.run_folder import BEST, CONFIG, find_run


def check_without_torch(cfg: DictConfig) -> None:
    """Checks a config that train.py composed."""
    check_keys_and_values(cfg)
    check_validation(cfg)
    check_fit(cfg)


def without_hydra(composed: DictConfig) -> DictConfig:
    """Returns the composed config without Hydra's own part, as Hydra passes it to a task."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def read_config(file: Path, trust: Sequence[str] = ()) -> DictConfig:
    """Reads the config of a run folder, which may come from somebody else, and checks it.

    `trust` are modules whose classes it may name besides those of this project, torch.nn, torch.optim and Lightning.
    """
    cfg = read_yaml(file)
    if not isinstance(cfg, DictConfig) or "model" not in cfg:
        raise UserError(f"{file}: is not the config of a run; give a folder that train.py made.")
    cfg = upgrade(cfg)
    try:
        check_keys_and_values(cfg, trust)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return cfg


def find_trained_run(cfg: DictConfig, kinds: Mapping[str, Any]) -> Path:
    """Checks the config of a script that reads a run, whose keys besides `run` and `trust` have these kinds. Returns
    the folder that `run` names. Raises UserError if that folder's config is invalid.
    """
    check_reader_keys(cfg, kinds)
    folder = find_run(cfg.run, BEST)
    read_config(folder / CONFIG, trusted_modules(cfg.trust))
    return folder


def check_reader_keys(cfg: DictConfig, kinds: Mapping[str, Any]) -> None:
    check_keys(resolve_interpolations(cfg, trusted=True), {"run": str | None, "trust": str | list[str] | None, **kinds})


def trusted_modules(trust: str | Sequence[str] | None) -> list[str]:
    """Returns the modules of the key `trust`: one, a list, or the text of a list as it is typed."""
    return [module.strip() for module in (trust.strip("[]").split(",") if isinstance(trust, str) else trust or [])]


def check_keys(config: Mapping[str, Any], kinds: Mapping[str, Any], groups: Iterable[str] = ()) -> None:
    for key, value in config.items():
        if key in kinds:
            check_value(key, value, kinds[key])
        elif key not in groups:
            raise unknown_key(key, [*kinds, *groups])


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
    check_orderings(config["data"])
    for key in REQUIRED:
        if OmegaConf.select(cfg, key) is None:
            raise missing_key(key)
    average = config["trainer"].get("callbacks", {}).get("ema", {}).get("decay")
    if average is not None and config["trainer"]["precision"] in ("bf16-true", "16-true"):
        raise UserError(
            f"trainer.callbacks.ema.decay: {average} needs finer steps than trainer.precision="
            f"{config['trainer']['precision']} has; write trainer.precision=bf16-mixed, or ema.decay=null."
        )
    clip, precision = config["trainer"].get("gradient_clip_val"), config["trainer"]["precision"]
    if clip and config["optimizer"].get("fused") and (precision == "auto" or precision.endswith("-mixed")):
        raise UserError(
            f"trainer.gradient_clip_val: {clip} cannot be combined with a fused optimizer "
            f"at trainer.precision={precision}; add optimizer.fused=false."
        )


def nodes_with_target(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the dotted path and the content of each node that names a class, also of those in lists."""
    if isinstance(node, dict) and "_target_" in node:
        yield path, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from nodes_with_target(child, f"{path}.{key}" if path else str(key))


def check_node(path: str, node: Mapping[str, Any]) -> None:
    check_value(f"{path}._target_", node["_target_"], str)
    target, group = node["_target_"], path.partition(".")[0]
    ours = target.startswith("quadrant_lstm.")
    check_target(path, target, TARGETS[group])
    kinds = CLASSES[target] if ours else LIBRARIES.get(group, {}) if path == group else {}
    unknown = [name for name in node if name not in kinds and not name.startswith("_")]
    if ours and unknown and "**" not in kinds:
        raise unknown_arguments(path, target, unknown, kinds)
    for name in kinds if ours else ():
        if name not in node and name != "**":
            raise missing_key(f"{path}.{name}")
    for name, value in node.items():
        if path == "model" and kinds.get(name) == Node and isinstance(value, str):
            raise UserError(f"{path}.{name}: {value} is a choice of a group; write {path}/{name}={value}.")
        if name in kinds:
            check_value(f"{path}.{name}", value, kinds[name])
        if path == "model" and kinds.get(name) == Node and "_target_" in value and value.get("_partial_") is not True:
            key = f"{path}.{name}._partial_"
            raise UserError(f"{key}: is not true, but the network calls the class with sizes; add ++{key}=true.")
        if f"{name}.*" in kinds and isinstance(value, dict):
            for child, content in value.items():
                check_value(f"{path}.{name}.{child}", content, kinds[f"{name}.*"])


def check_target(path: str, target: str, allowed: Sequence[str]) -> None:
    """Raises UserError for a class that no config may name; `allowed` are the packages of its group."""
    if target.startswith("quadrant_lstm.") and target not in CLASSES:
        raise UserError(f"{path}._target_: {target} is not a class of config/schema.py; correct the name.")
    if (target.startswith("quadrant_lstm.") or path == "data") and not target.startswith(tuple(allowed)):
        raise UserError(f"{path}._target_: {target} is not allowed; name a class of {'*, '.join(allowed)}*.")


def check_trust(config: Mapping[str, Any], trust: Sequence[str]) -> None:
    """Raises UserError for a class of other code whose module is not in `trust`, and names all modules to trust."""
    targets = {path: node["_target_"] for path, node in nodes_with_target(config) if node["_target_"] not in CLASSES}
    other = {path: name for path, name in targets.items() if not is_class_in(name, TARGETS[path.partition(".")[0]])}
    for path, target in other.items():
        if not any(target.startswith(f"{module}.") for module in trust):
            modules = ",".join(sorted({name.rpartition(".")[0] for name in other.values()}))
            remedy = f"{'write' if trust else 'add'} trust={f'[{modules}]' if ',' in modules else modules}"
            raise UserError(f"{path}._target_: {target} is other code; {remedy} if you trust it.")


def is_class_in(target: str, packages: Iterable[str]) -> bool:
    """Tells whether it is one capitalized name after a package: a longer path could lead to what modules import."""
    return any(re.fullmatch(re.escape(package) + r"[A-Z]\w*", target) for package in packages)


def check_value(key: str, value: Any, kind: Any) -> None:
    if value == "???":
        raise missing_key(key)
    if value == "":
        raise UserError(f"{key}: is empty; give a value, or leave it out.")
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        typed = {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))
        rule = in_words(kind)  # some name the remedy
        raise UserError(f"{key}: {typed} is not {rule if ';' in rule else f'{rule}; write {example(key)}'}.") from None


def check_fit(cfg: DictConfig) -> None:
    """Checks that data and network fit together. Data sets that are downloaded are checked when training starts."""
    config = resolve_interpolations(cfg, trusted=True)
    data, model = config["data"], config["model"]
    frame_shape = DATA_CHECKS[data["_target_"]](data)
    if model["_target_"] in CHECKS:
        CHECKS[model["_target_"]](model, data, frame_shape)

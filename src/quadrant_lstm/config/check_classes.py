"""Checks the nodes of a config that name a class: whether a config may name it, and its arguments. Imports no torch.

Of a config that may come from somebody else, it checks the paths, too: a resumed run writes into its folder only.

config/signatures.py checks arguments for the classes of torch and Lightning.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from quadrant_lstm.config.check_value import check_value
from quadrant_lstm.config.interpolations import RUN_FOLDER
from quadrant_lstm.config.messages import missing_key, unknown_arguments
from quadrant_lstm.config.schema import CLASSES, LIBRARIES, TARGETS
from quadrant_lstm.config.values import leaves
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import Node

FOLDER_ARGUMENT = re.compile(r"(dir|path|root|uri|url|location)$")  # of loggers, callbacks and profilers
DOWNLOADS = Path("~/.cache/quadrant_lstm")  # where conf/data/ puts data sets
WANDB_ARGUMENTS = {"_target_", "save_dir", "project", "offline"}  # of conf/; others go to wandb.init
READ_IN_PLACE = ("mnist", "idx")  # data sets that are not downloaded


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
    """Tells whether the target is listed itself, or is one capitalized name after a listed package: a longer path could
    lead to what modules import.
    """
    return any(target == package or re.fullmatch(re.escape(package) + r"[A-Z]\w*", target) for package in packages)


def check_paths(config: Mapping[str, Any], trust: Sequence[str]) -> None:
    """Raises UserError for a path that leads out of the run folder and is in none of the folders in `trust`."""
    for key, value in leaves(config["trainer"], "trainer"):
        if leads_outside(key, value):
            check_path(key, value, trust)


def check_uploads(config: Mapping[str, Any], trust: Sequence[str]) -> None:
    """Raises UserError for a logger that may upload to somebody's account, unless `trust` names it."""
    for path, node in nodes_with_target(config["trainer"]):
        uploads = node["_target_"].endswith(".WandB") and (not node.get("offline") or set(node) - WANDB_ARGUMENTS)
        if uploads and "wandb" not in trust:
            raise UserError(f"trainer.{path}: may upload to a server; add trust=wandb if you trust its arguments.")


def check_download(config: Mapping[str, Any], trust: Sequence[str]) -> None:
    """Raises UserError for a folder that a data set would be downloaded to, unless conf/ or `trust` names it."""
    data = config["data"]
    root = data.get("root")
    if root is not None and data.get("dataset", "idx") not in READ_IN_PLACE and not is_below(root, DOWNLOADS):
        check_path("data.root", root, trust)


def check_path(key: str, path: str, trust: Sequence[str]) -> None:
    if path not in trust and not any(is_below(path, Path(folder)) for folder in trust):
        raise UserError(f"{key}: {path} is outside the run folder; add trust={path} if files may be written there.")


def leads_outside(key: str, value: Any) -> bool:
    """Tells whether the value of a key of `trainer` is a path outside the run folder."""
    if not isinstance(value, str):
        return False
    inside = value.removeprefix(RUN_FOLDER)
    if inside != value:
        return inside[:1] not in ("", "/") or ".." in PureWindowsPath(inside).parts
    is_folder = FOLDER_ARGUMENT.search(key) is not None  # a relative path starts at the working directory
    parts = PureWindowsPath(value).parts  # which are separated by / or \\
    return is_folder or value.startswith(("/", "\\", "~")) or ".." in parts or ":\\" in value or "://" in value


def is_below(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder) and ".." not in Path(path).parts

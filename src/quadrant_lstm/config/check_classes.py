"""Checks the nodes of a config that name a class: whether a config may name it, and its arguments. Imports no torch.

config/signatures.py checks arguments for the classes of torch and Lightning.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from quadrant_lstm.config.check_value import check_value
from quadrant_lstm.config.messages import missing_key, unknown_arguments
from quadrant_lstm.config.schema import CLASSES, LIBRARIES, TARGETS
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import Node


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

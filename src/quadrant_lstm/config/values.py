"""Walks through the values of a config, and compares those of two configs."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

MISSING = "missing"


def without_hydra(composed: DictConfig) -> DictConfig:
    """Returns the composed config without Hydra's own part, as Hydra passes it to a task."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted key and the value of everything in a config that is no dict or list, or an empty one."""
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    if not children or not node:
        yield path, node
    for key, child in children:
        yield from leaves(child, f"{path}.{key}" if path else str(key))


def differing_values(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """Returns the values of both configs, by the keys in which they differ. Interpolations are not resolved."""
    first, second = (dict(leaves(OmegaConf.to_container(config))) for config in (one, other))
    pairs = {key: (first.get(key, MISSING), second.get(key, MISSING)) for key in first | second}
    return {key: pair for key, pair in pairs.items() if repr(pair[0]) != repr(pair[1])}  # 1 and true are equal

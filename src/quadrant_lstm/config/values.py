"""Walks through the values of a config, compares those of two configs, and resolves interpolations to values."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quadrant_lstm.errors import UserError

OWN_KEY = re.compile(r"\$\{[\w.]+\}")
RUN_FOLDER = "${hydra:runtime.output_dir}"  # in conf/; Hydra resolves it when a run starts
MISSING = "missing"
# The keys of `data` that neither divide the samples nor say what a network reads. A resumed run may change no others:
# it would validate on samples that it has been trained on, or need a network of other sizes.
FREE_DATA_KEYS = (
    "root", "labels", "batch_size", "seed", "augmentation", "test_windows", "num_workers", "cache_gb", "skip_broken"
)  # fmt: skip


def without_hydra(composed: DictConfig) -> DictConfig:
    """Returns the composed config without Hydra's own part, as Hydra passes it to a task."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted key and the content of a node of a config, and then of all below it."""
    yield path, node
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from nodes(child, f"{path}.{key}" if path else str(key))


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted key and the value of everything in a config that is no dict or list, or an empty one."""
    return ((key, value) for key, value in nodes(node, path) if not (value and isinstance(value, Mapping | list)))


def nodes_with_target(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields those nodes that name a class."""
    return ((key, value) for key, value in nodes(node) if isinstance(value, dict) and "_target_" in value)


def differing_values(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """Returns the values of both configs, by the keys in which they differ. Interpolations are not resolved."""
    first, second = (dict(leaves(OmegaConf.to_container(config))) for config in (one, other))
    pairs = {key: (first.get(key, MISSING), second.get(key, MISSING)) for key in first | second}
    return {key: pair for key, pair in pairs.items() if repr(pair[0]) != repr(pair[1])}  # 1 and true are equal


# Interpolations


def resolve_interpolations(cfg: DictConfig, trusted: bool) -> dict[str, Any]:
    """Returns the config as plain dicts, lists and values. Raises UserError for an interpolation that does not resolve.

    In a config that is not `trusted`, an interpolation may only name keys of the same config, and their values may
    contain no interpolation, because nested ones could expand to any number of values.
    """
    raw: Any = OmegaConf.to_container(cfg)
    for key, value in () if trusted else leaves(raw):  # all of them first: one that resolves may lead to any other
        if names_other_than_own_keys(value):
            raise UserError(f"{key}: {value} does not only name keys of this config; write the value itself.")
    return {key: resolve_value(cfg, key, raw[key], key, trusted) for key in raw}


def names_other_than_own_keys(value: Any) -> bool:
    """Tells whether a value holds an interpolation of more than a key of its config, or than the run folder."""
    return isinstance(value, str) and "${" in OWN_KEY.sub("", value.removeprefix(RUN_FOLDER))


def resolve_value(parent: Any, name: Any, raw: Any, key: str, trusted: bool) -> Any:
    """Returns the value of `parent[name]`, which is `raw` before its interpolations are resolved."""
    if isinstance(raw, dict):
        return {child: resolve_value(parent[name], child, raw[child], f"{key}.{child}", trusted) for child in raw}
    if isinstance(raw, list):
        return [resolve_value(parent[name], i, child, f"{key}.{i}", trusted) for i, child in enumerate(raw)]
    if not OmegaConf.is_interpolation(parent, name) or "${" not in raw.removeprefix(RUN_FOLDER):
        return raw
    try:
        value = parent[name]
        plain = OmegaConf.to_container(value, resolve=trusted) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{key}: {raw} cannot be resolved ({reason}); name another key or write a value.") from None
    if not trusted and "${" in str(plain):
        raise UserError(f"{key}: {raw} leads to another interpolation; write the value itself.")
    return plain

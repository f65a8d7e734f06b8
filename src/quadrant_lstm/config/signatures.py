"""Compares what a config passes to the classes of torch and Lightning with their signatures. Imports those classes."""

import inspect
from collections.abc import Mapping
from pydoc import locate
from typing import Any

from omegaconf import DictConfig

from quadrant_lstm.config.check import nodes_with_target
from quadrant_lstm.config.interpolations import resolved
from quadrant_lstm.config.messages import missing, not_taken
from quadrant_lstm.config.schema import CLASSES
from quadrant_lstm.errors import UserError

GIVEN_BY_CODE = {"params", "optimizer", "total_steps", "T_max"}


def check_signatures(cfg: DictConfig) -> None:
    """Raises UserError for a class that does not exist, an argument that it does not take, or one that is missing."""
    for path, node in nodes_with_target(resolved(cfg, trusted=True)):
        if node["_target_"] not in CLASSES:
            check_signature(path, node)


def check_signature(path: str, node: Mapping[str, Any]) -> None:
    target = node["_target_"]
    kind = locate(target)
    if not inspect.isclass(kind):
        raise UserError(f"{path}._target_: there is no class {target}; correct the name.")
    parameters = inspect.signature(kind).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    takes = [name for name in parameters if name not in GIVEN_BY_CODE]
    unknown = [name for name in node if not name.startswith("_") and name not in takes]
    if unknown and not open_ended:
        raise not_taken(path, target, unknown, takes)
    for name in takes:
        if parameters[name].default is inspect.Parameter.empty and name not in node and not open_ended:
            raise missing(f"{path}.{name}")

"""Compares a config's arguments for classes of torch and Lightning with their signatures. Imports torch."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from omegaconf import DictConfig
from torch.optim.lr_scheduler import ReduceLROnPlateau

from quadrant_lstm.config.check import nodes_with_target
from quadrant_lstm.config.interpolations import resolve_interpolations
from quadrant_lstm.config.messages import missing_key, unknown_arguments
from quadrant_lstm.config.schema import CLASSES
from quadrant_lstm.errors import UserError

GIVEN_BY_CODE = {"params", "optimizer", "total_steps", "T_max", "frame_shape", "num_classes", "orderings"}


def check_signatures(cfg: DictConfig) -> None:
    """Raises UserError for a class that does not exist, an unknown argument, or a missing one."""
    for path, node in nodes_with_target(resolve_interpolations(cfg, trusted=True)):
        if node["_target_"] not in CLASSES:
            check_signature(path, node)


def check_signature(path: str, node: Mapping[str, Any]) -> None:
    target = node["_target_"]
    package, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(package), name, None)
    except (ImportError, ValueError) as error:  # ValueError: a name without a module
        place = "put its file beside the script or into a folder of PYTHONPATH, or correct the name"
        raise UserError(f"{path}._target_: {target} cannot be imported ({error}); {place}.") from error
    if not inspect.isclass(found):
        raise UserError(f"{path}._target_: there is no class {target}; correct the name.")
    if found is ReduceLROnPlateau:
        raise UserError(f"{path}._target_: {target} needs a metric, which no run gives it; name another class.")
    parameters = inspect.signature(found).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    known = [name for name in parameters if name not in GIVEN_BY_CODE]
    unknown = [name for name in node if not name.startswith("_") and name not in known]
    if unknown and not takes_any:
        raise unknown_arguments(path, target, unknown, known)
    for name in () if path.startswith("model.") else known:  # the network adds the sizes
        if parameters[name].default is inspect.Parameter.empty and name not in node and not takes_any:
            raise missing_key(f"{path}.{name}")

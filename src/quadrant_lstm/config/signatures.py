"""Compares a config's arguments for classes of torch and Lightning with their signatures. Imports torch."""

import difflib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from omegaconf import DictConfig
from torch.optim.lr_scheduler import ReduceLROnPlateau

from quadrant_lstm.config.check_classes import nodes_with_target
from quadrant_lstm.config.interpolations import resolve_interpolations
from quadrant_lstm.config.messages import missing_key, unknown_arguments
from quadrant_lstm.config.schema import CLASSES
from quadrant_lstm.errors import UserError, place_in_own_code, with_type

GIVEN_BY_CODE = {"params", "optimizer", "total_steps", "T_max"}
GIVEN_BY_CODE |= {"frame_shape", "num_classes", "num_steps", "orderings", "grid"}


def check_signatures(cfg: DictConfig, group: str = "") -> None:
    """Raises UserError for a class that does not exist, an unknown argument, or a missing one, in one group or all."""
    for path, node in nodes_with_target(resolve_interpolations(cfg, trusted=True)):
        if path.startswith(group) and node["_target_"] not in CLASSES:
            check_signature(path, node)


def takes(function: Callable[..., Any], name: str) -> bool:
    """Tells whether a function or the constructor of a class takes an argument of this name."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def check_signature(path: str, node: Mapping[str, Any]) -> None:
    target = node["_target_"]
    found = find_class(f"{path}._target_", target)
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


def find_class(key: str, target: str) -> type:
    """Imports a class. Raises UserError for an error in its module, and for a wrong name, with the nearest one."""
    package, _, name = target.rpartition(".")
    place = "put its file beside the script or into a folder of PYTHONPATH"
    if not package:
        raise UserError(f"{key}: {target} names no module; write MODULE.CLASS, and {place}.")
    try:
        module = import_module(package)
    except Exception as error:
        if own := place_in_own_code(error):
            raise UserError(f"{key}: {target} cannot be imported: {own}{with_type(error)}") from error
        similar = difflib.get_close_matches(package, [other.name for other in pkgutil.iter_modules()], n=1, cutoff=0.8)
        remedy = f"did you mean {similar[0]}.{name}?" if similar else f"{place}, or correct the name."
        raise UserError(f"{key}: {target} cannot be imported ({error}); {remedy}") from error
    found = getattr(module, name, None)
    if inspect.isclass(found):
        return found
    if found is not None:
        raise UserError(f"{key}: {target} is not a class; name one.")
    classes = [other for other, value in vars(module).items() if inspect.isclass(value)]
    similar = difflib.get_close_matches(name, classes, n=1)
    remedy = f"did you mean {package}.{similar[0]}?" if similar else "correct the name."
    raise UserError(f"{key}: there is no class {target}; {remedy}")

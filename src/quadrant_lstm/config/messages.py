"""Words the errors about keys: what is missing, what is unknown, and what is meant. Imports no torch."""

import difflib
import sys
from collections.abc import Iterable

from omegaconf import DictConfig

from quadrant_lstm.config.defaults import default_value
from quadrant_lstm.errors import UserError


def missing(key: str) -> UserError:
    if isinstance(default_value(key), DictConfig):
        return UserError(f"{key}: is missing, and a run needs it; leave out ~{key}.")
    return UserError(f"{key}: is missing; add {example(key)}.")


def example(key: str) -> str:
    """The key with the value that conf/ gives it."""
    default = default_value(key)
    if isinstance(default, DictConfig):
        return f"{key}.KEY=VALUE"
    # without the spaces of a list, at which a shell would cut it
    return f"{key}=VALUE" if default is None else f"e.g. {key}={default}".replace(", ", ",")


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

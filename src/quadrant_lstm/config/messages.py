"""Writes the errors about missing and unknown keys, with examples from conf/. Imports no torch."""

import difflib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from quadrant_lstm.compat import OF_COMPOSE
from quadrant_lstm.errors import UserError
from quadrant_lstm.text import quoted


def default_config() -> DictConfig:
    """Composes the config of the running script with the typed choices of groups but without other overrides; for a
    command without a config, that of train.py as it stands.
    """
    own = config_of_script()
    folder, name = own or (Path("conf").absolute(), "train")
    if not (folder / f"{name}.yaml").is_file():
        return OmegaConf.create()
    choices = typed_choices() if own else []
    running, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # there may be only one at a time
    try:
        with initialize_config_dir(str(folder), **OF_COMPOSE):
            try:
                return compose(name, choices)
            except HydraException:
                return compose(name)
    finally:
        GlobalHydra.instance().hydra = running


def config_of_script() -> tuple[Path, str] | None:
    """Returns the folder and the name of the config of the running script, if it is one of the four that have one."""
    script = Path(sys.argv[0]).resolve()
    folders = [script.parent / folder for folder in ("conf", "conf/readers")]
    return next(((folder, script.stem) for folder in folders if (folder / f"{script.stem}.yaml").is_file()), None)


def typed_choices() -> list[str]:
    groups = r"(data|model(/\w+)?|optimizer|schedule|trainer(/\w+)?|experiment)=\w+"
    options = get_args_parser().parse_known_intermixed_args(sys.argv[1:])[0]
    choices = [override for override in options.overrides if re.fullmatch(groups, override)]
    if options.config_dir:
        choices.append(f"hydra.searchpath=[{quoted(Path(options.config_dir).absolute())}]")
    return choices


def default_value(key: str) -> Any:
    return OmegaConf.select(default_config(), key)


def missing_key(key: str) -> UserError:
    if isinstance(default_value(key), DictConfig):
        return UserError(f"{key}: is missing, but a run needs it; leave out the ~ override that removes it.")
    return UserError(f"{key}: is missing; add {example(key)}.")


def example(key: str) -> str:
    """Returns an override that assigns the key its default from conf/."""
    default = default_value(key)
    if isinstance(default, DictConfig):
        return f"{key}.KEY=VALUE"
    # a shell would split a list at its spaces
    return f"{key}=VALUE" if default is None else f"e.g. {key}={default}".replace(", ", ",")


def unknown_arguments(path: str, target: str, unknown: list[str], known: Iterable[str]) -> UserError:
    """Returns the error about arguments that a class does not take: those of conf/ must go."""
    of_conf = default_value(path) or {}
    defaults = [name for name in unknown if name in of_conf]
    if defaults != unknown:
        typed = next(name for name in unknown if name not in defaults)
        return unknown_key(f"{path}.{typed}", [f"{path}.{other}" for other in known])
    return UserError(
        f"{path}.{defaults[0]}: {target} does not take {' or '.join(defaults)}; "
        f"remove {'it' if len(defaults) == 1 else 'them'} with {' '.join(f'~{path}.{name}' for name in defaults)}."
    )


def unknown_key(key: str, known: Iterable[str]) -> UserError:
    """Suggests the most similar key of the group, else a key with the same last part (optimizer.lr for lr)."""
    known = [other for other in known if "._" not in other]
    group, _, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == group}
    similar = [siblings[other] for other in difflib.get_close_matches(name, siblings, n=1, cutoff=0.5)]
    similar = similar or [other for other in known if other.endswith(f".{name}")]
    similar = similar or difflib.get_close_matches(key, [] if siblings else known, n=1, cutoff=0.5)
    if similar:
        remedy = f"did you mean {similar[0]}?"
    elif 0 < len(siblings) <= 20:
        remedy = f"known keys: {', '.join(siblings.values())}."
    else:
        remedy = f"python {sys.argv[0] if config_of_script() else 'train.py'} --cfg job shows all keys."
    return UserError(f"{key}: there is no such key; {remedy}")

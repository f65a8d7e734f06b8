"""Rewrites errors of Hydra, OmegaConf and the disk as a UserError: one line with a remedy. Imports no torch."""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from quadrant_lstm.config.messages import default_config, unknown_key
from quadrant_lstm.config.schema import CLASSES
from quadrant_lstm.errors import DISK_ERRNOS, PATH_ERRNOS, UserError, as_text
from quadrant_lstm.run_folder import CONFIG

READERS = ("evaluate.py", "predict.py", "export.py")


def explain(error: Exception) -> UserError:
    """Rewrites an error of Hydra or OmegaConf; returns a UserError as it is."""
    if isinstance(error, UserError):
        return error
    if mistake := mistake_behind(error):  # raised by the resolver ${new_folder:...}
        return mistake
    if isinstance(error, OverrideParseException):
        key, _, value = str(error.override).partition("=")
        if re.fullmatch(r"[+~]*[\w./@]+", key) and value and value[0] not in "[{":
            if as_text(value) != value:
                return UserError(f"{key}: {value} holds bytes that are not UTF-8; rename that file or folder.")
            value = value.replace("'", "\\'")
            return UserError(f"{key}: a value with such characters needs quotes: \"{key}='{value}'\".")
        example = "run=latest" if Path(sys.argv[0]).name in READERS else "model.lstm_units=64"
        return UserError(f"{error.override}: is not an override; write KEY=VALUE, e.g. {example}.")
    if isinstance(error, MissingConfigException):
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if options := error.options or group_choices(group):
            return unknown_choice(group, choice, options)
    reason = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(reason, ConfigAttributeError | ConfigKeyError):
        return explain_key(str(reason.full_key))
    if match := re.match(r"Could not override '(model/\w+)'", str(error)):
        return UserError(f"{match[1]}: this model has no such part; add model=join, or leave it out.")
    if match := re.match(r"Multiple values for ([\w/]+)", str(error)):
        return UserError(f"{match[1]}: a plus adds a second choice to the one in conf/; leave the plus out.")
    return UserError(error)


def mistake_behind(error: BaseException | None) -> UserError | None:
    return error if error is None or isinstance(error, UserError) else mistake_behind(error.__context__)


def unknown_choice(group: str, choice: str, options: Iterable[str]) -> UserError:
    return UserError(f"{group}: there is no {group}={choice}; choose from {', '.join(options)}.")


def check_choices(arguments: Iterable[str]) -> None:
    """Raises UserError for a group whose choice is null or a number: Hydra's own error does not name the group."""
    for argument in arguments:
        group, _, chosen = argument.partition("=")
        for choice in chosen.split(","):
            if re.fullmatch(r"null|[\d.]+", choice) and (options := group_choices(group)):
                raise unknown_choice(group, choice, options)


def group_choices(group: str) -> list[str]:
    """Returns the names of the files of a group in conf/."""
    folder = Path(sys.argv[0]).resolve().parent / "conf" / group
    return sorted(file.stem for file in folder.glob("*.yaml")) if group else []


def explain_key(key: str) -> UserError:
    """Returns the error about a key that no config defines, with the most similar key."""
    if key.startswith("hydra."):
        return UserError(f"{key}: there is no such key; python {sys.argv[0]} --cfg hydra shows Hydra's keys.")
    config = default_config()
    known = list(dotted_keys(OmegaConf.to_container(config)))
    if key in known:  # one of several choices in a sweep does not have it
        group = key.partition(".")[0]
        return UserError(f"{key}: not every choice of {group} has this key; leave it out, or sweep over fewer choices.")
    error = unknown_key(key, known)
    target = OmegaConf.select(config, f"{key.rpartition('.')[0]}._target_") if "." in key else None
    if target is None or target in CLASSES:
        return error
    return UserError(f"{error} Add any other argument of {target} with +{key}=VALUE.")


def dotted_keys(config: Any, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from dotted_keys(value, f"{prefix}{key}.")


def mistake_in(error: BaseException) -> UserError | None:
    """Returns the user's mistake that an error tells of, or None for a bug."""
    if isinstance(error, InstantiationException):
        return None
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):  # some of Hydra's are OSErrors, too
        return explain(error)
    return explain_disk(error) if isinstance(error, OSError) else None


def explain_disk(error: OSError) -> UserError | None:
    """Rewrites the error of a full, read-only or over-quota disk, naming the run folder, and of a path that cannot be
    used. Returns None for any other error.
    """
    if error.errno in PATH_ERRNOS:
        path = error.filename or "a path"
        return UserError(f"{path}: cannot be used ({error.strerror}); correct the path or its permissions.")
    if error.errno not in DISK_ERRNOS:
        return None
    folder = HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else None
    if not folder or not Path(folder, CONFIG).exists():  # no run starts, or a script that reads runs
        return UserError(
            f"{error.filename or 'the output'}: cannot be written ({error.strerror}); make room and rerun."
        )
    return UserError(
        f"{folder}: cannot be written ({error.strerror}); the last finished epoch is safe. Fix it and resume with "
        f"run={folder}."
    )

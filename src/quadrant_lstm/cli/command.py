"""Runs the main function of a root script so that a user's mistake costs one line on stderr and exit status 2.

Ctrl-C and SIGTERM end it without a traceback, with exit status 130 and 143. A config is checked before Hydra makes the
run folder. Imports no torch before that.
"""

import contextlib
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, errors, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from quadrant_lstm import run_folder, signals
from quadrant_lstm.compat import OF_COMPOSE
from quadrant_lstm.config.check import check_config, check_effect, unknown_key
from quadrant_lstm.config.trust import OWN
from quadrant_lstm.config.values import leaves, without_hydra
from quadrant_lstm.errors import FILE_ERRNOS, UserError, with_type
from quadrant_lstm.files import WriteError, write_json, wrong_encoding
from quadrant_lstm.processes.torchrun import Meeting, is_torchrun
from quadrant_lstm.run_folder import CONFIG, ERROR, RESULTS, as_typed, find_weights, new_folder, remove_untouched
from quadrant_lstm.text import assigned

# The config of train.py for another command, which runs in the project's root


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Returns the checked config that train.py would have in the project's root. Raises UserError elsewhere."""
    if not Path("conf/train.yaml").is_file():
        raise UserError("conf/train.yaml: is not here; run this command in the project's root.")
    with initialize_config_dir(str(Path("conf").absolute()), **OF_COMPOSE):
        cfg = compose("train", list(overrides))
    check_config(cfg)
    return cfg


# Errors of Hydra, OmegaConf and the disk as a UserError: one line with a remedy


def mistake_in(error: BaseException) -> UserError | None:
    """Returns the user's mistake that an error tells of, or None for a bug."""
    if isinstance(error, Refused):
        return error.mistake
    if isinstance(error, UserError):
        return error
    if isinstance(error, errors.InstantiationException):
        return None
    if isinstance(error, errors.HydraException | OmegaConfBaseException):  # some of Hydra's are OSErrors, too
        return explain(error)
    if isinstance(error, yaml.YAMLError):
        return UserError(f"{' '.join(str(error).split())}; correct the YAML of that file.")
    if isinstance(error, UnicodeDecodeError):
        return wrong_encoding(Path(sys.argv[0]).resolve().parent / "conf")
    return explain_disk(error) if isinstance(error, OSError) else None


def explain(error: Exception) -> UserError:
    """Rewrites an error of Hydra or OmegaConf."""
    if isinstance(error, errors.OverrideParseException):
        return UserError(f"{error.override}: cannot be parsed; write KEY=VALUE, or \"KEY='VALUE'\" for a text.")
    if isinstance(error, errors.MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return UserError(f"{group}: there is no {group}={choice}; choose from {', '.join(error.options)}.")
    reason = error.__cause__
    if isinstance(reason, ConfigAttributeError | ConfigKeyError) and OmegaConf.is_dict(reason.parent_node):
        return explain_key(str(reason.full_key), reason.parent_node)
    no_part = r"(?:Could not override '|Invalid Defaults List override '/?)(model/\w+)"  # of Hydra 1.3 and 1.4
    if match := re.match(rf"(?:In 'experiment/(.+)': )?{no_part}", str(error)):
        name, part = match.groups()
        it = f"experiment={name}" if name else "it"
        return UserError(f"{part}: this model has no such part; add model=join, or leave {it} out.")
    return UserError(error)


def explain_key(key: str, group: Any) -> UserError:
    """`group` is the part of the config that does not define the key."""
    plain: Any = OmegaConf.to_container(group)
    siblings = {name: value for name, value in plain.items() if name != "hydra"}
    error = unknown_key(key, [*siblings, *(path for path, _ in leaves(siblings))])
    target = siblings.get("_target_", OWN)
    more = "" if target.startswith(OWN) else f" Add any other argument of {target} with +{key}=VALUE."
    return UserError(f"{error}{more}")


def explain_disk(error: OSError) -> UserError | None:
    """Rewrites the error of a disk or a path. Returns None for any other error."""
    if error.errno not in FILE_ERRNOS:
        return None
    folder = HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else None
    is_run = folder and Path(folder, CONFIG).exists()  # not before a run starts, or in a script that reads runs
    remedy = f"resume with run={folder}, after the last finished epoch" if is_run else "rerun"
    return UserError(f"{error.filename or folder or 'a file'}: cannot be used ({error.strerror}). Fix it and {remedy}.")


# The main function


log = logging.getLogger(__name__)


@contextlib.contextmanager
def handle_errors() -> Iterator[Meeting | None]:
    """Wraps Hydra's main: prints an error of the user in one line, and ends the process with its exit status. Yields
    the meeting with the other processes, if torchrun started this one.
    """
    meeting = None
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises errors instead of printing them
    logging.raiseExceptions = False  # on a full disk, logging prints no traceback for each line of train.log
    signals.exit_at_signals()
    try:
        meeting = Meeting() if is_torchrun() else None
        with signals.interrupts_first():
            yield meeting
    except (Exception, Refused) as error:
        mistake = mistake_in(error)
        is_first = meeting is None or meeting.report(str(mistake or with_type(error)))
        if not mistake:
            raise
        if is_first:
            print(f"{meeting.machine if meeting else ''}{mistake}", file=sys.stderr)
        sys.exit(2)
    except signals.Interrupt:
        if not meeting or meeting.rank == 0:
            print("interrupted", file=sys.stderr)
        raise
    finally:
        signals.prepare_to_exit()
        if meeting:
            meeting.leave()


@contextlib.contextmanager
def handle_job_errors() -> Iterator[None]:
    """Wraps one job: a mistake ends the process, or in a sweep fails only this job. A sweep finds any error of a job in
    its error.json, and the traceback of a bug in its log.
    """
    try:
        yield
    except Exception as error:
        mistake, hydra = mistake_in(error), HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        if hydra.mode == RunMode.MULTIRUN:
            reason = str(mistake or with_type(error).partition("\n")[0])
            log.error(reason, exc_info=mistake is None)
            with contextlib.suppress(WriteError):
                write_json(folder / ERROR, {"error": reason})
            if mistake:
                raise mistake from None
        if not mistake:
            raise
        if hydra.output_subdir:  # a new run
            remove_untouched(folder)
        raise Refused(mistake) from None


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Wraps a run: says how to resume it if a signal, or a file that cannot be written, ends it."""
    try:
        with signals.interrupts_first():
            yield
    except WriteError as error:
        folder = as_typed(Path(HydraConfig.get().runtime.output_dir))
        raise error.with_remedy(f"run={folder} resumes after the last finished epoch") from error
    except SystemExit as end:  # an Interrupt, or that of Lightning's or SLURM's signal handlers
        folder = Path(HydraConfig.get().runtime.output_dir)
        if (folder / RESULTS).exists():
            raise
        command = "torchrun ... train.py" if is_torchrun() else "python train.py"
        log.info(f"interrupted; resume with: {command} {shlex.quote(f'run={as_typed(folder)}')}")
        raise SystemExit(signals.TERMINATED if end.code is None else end.code) from None  # Lightning's has no code


class Refused(SystemExit):
    """Passes a mistake through Hydra, which turns other exceptions into lines or warnings of its own."""

    def __init__(self, mistake: UserError):
        super().__init__(2)
        self.mistake = mistake


def make_folder(key: str, folder: str, hydra: DictConfig) -> str:
    """Makes the folder of a run or a sweep: a new one, unless it was typed. Raises UserError if that contains a run."""
    if not is_typed(key, hydra):
        return new_folder(folder)
    if hydra.output_subdir and Path(folder, CONFIG).exists():
        raise UserError(f"{key}: {folder} contains a run; resume it with run=, or write another folder.")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}: {folder} cannot be made ({error.strerror}); write another folder.") from error
    return folder


def is_typed(key: str, hydra: DictConfig) -> bool:
    """Tells whether a key of Hydra was given on the command line."""
    return key in assigned(hydra.overrides.hydra)


class BeforeRun(Callback):
    """Checks the config before Hydra makes the run folder, so that a mistake leaves nothing behind."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            if (params := config.hydra.sweeper.get("params")) and not config.get("swept"):
                experiment = config.hydra.runtime.choices.get("experiment")
                raise UserError(f"experiment: {experiment} is a sweep over {', '.join(map(str, params))}; add -m.")
            init = config.get("init")
            if init and isinstance(init, str) and config.hydra.output_subdir:  # a run that is resumed does not need it
                find_weights(init)
            check_config(cfg := without_hydra(config))
            if cfg.get("teacher"):
                run_folder.find_teachers(cfg.teacher)
            check_effect(cfg, config.hydra.overrides.task)
            with signals.importing():
                # imports Lightning
                from quadrant_lstm.run.build import check_fit, num_processes_to_launch, quiet_lightning

                quiet_lightning()
                num_processes_to_launch(cfg)  # checks the devices and the nodes
            check_fit(cfg, config.hydra.overrides.task)
            with read_write(config.hydra):
                config.hydra.run.dir = make_folder("hydra.run.dir", config.hydra.run.dir, config.hydra)
        except Exception as error:
            if mistake := mistake_in(error):
                raise Refused(mistake) from None
            raise

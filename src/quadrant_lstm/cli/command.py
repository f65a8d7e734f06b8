"""Runs the main function of a root script so that a user's mistake costs one line on stderr and exit status 2.

Ctrl-C and SIGTERM end it without a traceback, with exit status 130 and 143. A config is checked before Hydra makes the
run folder. Imports no torch before that.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from quadrant_lstm.cli.explain import mistake_in
from quadrant_lstm.config.values import without_hydra
from quadrant_lstm.errors import UserError, with_type
from quadrant_lstm.files import WriteError
from quadrant_lstm.processes import torchrun
from quadrant_lstm.run_folder import CONFIG, RESULTS, as_typed, find_weights, new_folder, remove_untouched
from quadrant_lstm.signals import (
    TERMINATED,
    Interrupt,
    exit_at_signals,
    prepare_to_exit,
    signals_deferred,
)

log = logging.getLogger(__name__)

OmegaConf.register_new_resolver("new_folder", new_folder, use_cache=True)  # all jobs of a sweep share its folder


@contextlib.contextmanager
def handle_errors() -> Iterator[None]:
    """Wraps Hydra's main: prints an error of the user in one line, and ends the process with its exit status."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises errors instead of printing them
    logging.raiseExceptions = False  # on a full disk, logging prints no traceback for each line of train.log
    exit_at_signals()
    try:
        yield
    except Exception as error:
        if mistake := mistake_in(error):
            fail(mistake)
        if torchrun.meeting:
            torchrun.meeting.report(with_type(error))
        raise
    except Interrupt:
        if not torchrun.meeting or torchrun.meeting.rank == 0:
            print("interrupted", file=sys.stderr)
        raise
    finally:
        prepare_to_exit()


@contextlib.contextmanager
def handle_job_errors() -> Iterator[None]:
    """Wraps one job: a mistake ends the process, or in a sweep fails only this job and is written to its log."""
    try:
        yield
    except Exception as error:
        mistake, in_sweep = mistake_in(error), HydraConfig.get().mode == RunMode.MULTIRUN
        if not mistake:
            if in_sweep:
                log.exception(f"{type(error).__name__}: {error}")
            raise
        if in_sweep:
            log.error(mistake)
            raise mistake from None
        if HydraConfig.get().output_subdir:  # a new run
            remove_untouched(Path(HydraConfig.get().runtime.output_dir))
        fail(mistake)


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Wraps a run: says how to resume it if a signal, or a file that cannot be written, ends it."""
    try:
        yield
    except WriteError as error:
        folder = as_typed(Path(HydraConfig.get().runtime.output_dir))
        raise error.with_remedy(f"run={folder} resumes after the last finished epoch") from error
    except SystemExit as end:  # an Interrupt, or that of Lightning's or SLURM's signal handlers
        folder = Path(HydraConfig.get().runtime.output_dir)
        if (folder / RESULTS).exists():
            raise
        command = "torchrun ... train.py" if torchrun.meeting else "python train.py"
        log.info(f"interrupted; resume with: {command} run={as_typed(folder)}")
        raise SystemExit(TERMINATED if end.code is None else end.code) from None  # Lightning's has no code


def make_folder(folder: Path) -> None:
    """Makes the run folder and tells it to the other processes of torchrun."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if torchrun.meeting:
            torchrun.meeting.decide(str(folder.absolute()))
    except OSError as error:
        raise UserError(f"hydra.run.dir: {folder} cannot be made ({error.strerror}); write another folder.") from error


def fail(error: Exception) -> NoReturn:
    meeting = torchrun.meeting
    if meeting is None or meeting.report(str(error)):
        print(f"{meeting.machine if meeting else ''}{error}", file=sys.stderr)
    sys.exit(2)


def check_config(cfg: DictConfig) -> None:
    """Checks a config that train.py composed."""
    with signals_deferred():
        from quadrant_lstm.config.check import check_without_torch  # imports torch
        from quadrant_lstm.config.signatures import check_signatures
    check_without_torch(cfg)
    with signals_deferred():
        check_signatures(cfg)  # imports the classes


class BeforeRun(Callback):
    """Checks the config before Hydra makes the run folder, so that a mistake leaves nothing behind.

    Exits itself, because Hydra turns the exceptions of a callback into warnings, except SystemExit.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            if (params := config.hydra.sweeper.get("params")) and not config.get("swept"):
                experiment = config.hydra.runtime.choices.get("experiment")
                raise UserError(f"experiment: {experiment} is a sweep over {', '.join(map(str, params))}; add -m.")
            init = config.get("init")
            if init and isinstance(init, str) and config.hydra.output_subdir:  # a run that is resumed does not need it
                find_weights(init)
            check_config(cfg := without_hydra(config))
            with signals_deferred():
                from quadrant_lstm.run.build import num_processes_to_launch  # imports Lightning
                from quadrant_lstm.run.quiet import quiet_lightning

                quiet_lightning()
                num_processes_to_launch(cfg)  # checks the devices and the nodes
            folder, subdir = config.hydra.run.dir, config.hydra.output_subdir  # makes the folder
            if subdir and Path(folder, CONFIG).exists():
                raise UserError(
                    f"hydra.run.dir: {folder} contains a run; resume it with run={folder}, or write another folder."
                )
            make_folder(Path(folder))
        except Exception as error:
            if mistake := mistake_in(error):
                fail(mistake)
            raise

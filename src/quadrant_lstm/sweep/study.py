"""Stores the trials of a search in study.db, and makes the samplers and pruners of its config. Imports optuna."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import Trial, TrialState
from sqlalchemy import URL, NullPool
from sqlalchemy.exc import SQLAlchemyError

from quadrant_lstm.config.check_classes import is_class_in, nodes_with_target
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.sweep_folder import STUDY, Sweep

STUDY_NAME = "sweep"


def instantiate_within(prefix: str, key: str, node: DictConfig, **arguments: Any) -> Any:
    """Instantiates a sampler or pruner. The config may come from an untrusted folder, so its classes are limited."""
    plain = OmegaConf.to_container(node, resolve=True)
    for _, nested in nodes_with_target(plain):
        if not is_class_in(target := str(nested["_target_"]), [prefix]):
            raise UserError(f"{key}: {target} is not in {prefix[:-1]}; write {key}._target_={prefix}NAME.")
    try:
        return instantiate(plain, **arguments)
    except (InstantiationException, ValueError) as error:
        raise UserError(f"{key}: {error.__cause__ or error}; change a value of {key}.") from error


def storage(folder: Path) -> BaseStorage:
    """Returns a storage that connects for each call, so that no connection is open when a job's process is forked."""
    url = URL.create("sqlite", database=str(folder / STUDY)).render_as_string()
    return RDBStorage(url, engine_kwargs={"poolclass": NullPool, "connect_args": {"timeout": 60}})


def copy_storage(folder: Path) -> BaseStorage:
    copy = InMemoryStorage()
    if (folder / STUDY).exists():
        with contextlib.suppress(KeyError):  # an empty file
            optuna.copy_study(from_study_name=STUDY_NAME, from_storage=storage(folder), to_storage=copy)
    return copy


@contextlib.contextmanager
def storage_errors_explained(folder: Path) -> Iterator[None]:
    """Turns errors of SQLite into one line with the remedy for each."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        causes = (cause for cause in causes_of(error) if isinstance(cause, sqlite3.Error))
        reason = next(causes, sqlite3.Error("it is damaged"))
        code = getattr(reason, "sqlite_errorcode", 0) & 0xFF  # without what tells kinds of one error apart
        remedy = "restore it, or add study=rebuild to make it again from the folders of the trials"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            remedy = "close the program that has it open"
        elif code in (
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_FULL,
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_PERM,
        ):
            remedy = "correct its permissions, or make room"
        raise UserError(
            f"{folder / STUDY}: cannot be used ({reason}); {remedy}, and resume with sweep={folder}."
        ) from error


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def running_trial(folder: Path) -> Trial | None:
    """Returns the trial whose run has that folder, or None if the trial is no longer running."""
    config = OmegaConf.create(Sweep(folder.parent).hydra["sweeper"]["pruner"])  # as SearchSweeper has recorded it
    pruner = instantiate_within("optuna.pruners.", "hydra.sweeper.pruner", config)
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage(folder.parent), pruner=pruner)
    trial = study.trials[int(folder.name)]
    return Trial(study, trial._trial_id) if trial.state == TrialState.RUNNING else None

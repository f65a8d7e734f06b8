"""Lightning's loggers for TensorBoard, Weights & Biases and MLflow, and what this project adds to them.

A resumed run continues the tracked run, whose id is in trackers.json. The metrics of an epoch that was interrupted
remain, beside those of its repetition.
"""

import contextlib
import logging
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from filelock import FileLock
from jaxtyping import UInt8
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.files import read_json, write_json
from quadrant_lstm.run_folder import OUTPUTS, TRACKERS, as_typed
from quadrant_lstm.signals import signals_deferred

# What all offer


EXTRA = "trackers"


@runtime_checkable
class Tracker(Protocol):
    """What the loggers of this project, TensorBoard included, add to Lightning's."""

    def start(self, config: dict[str, Any], step: int) -> None:
        """Begins the tracked run, or continues it at a training step."""

    def add_picture(self, tag: str, pixels: UInt8[np.ndarray, "height width 3"], step: int) -> None: ...

    def command_to_view(self) -> str:
        """Returns the command, or the address, that shows the tracked run."""

    def close(self, status: str) -> None:
        """Ends the tracked run, with "success" or "failed". A forked process does not run the exit handlers
        that would do it.
        """


@contextlib.contextmanager
def as_user_error(key: str, error_types: tuple[type[Exception], ...], remedy: str) -> Iterator[None]:
    try:
        yield
    except error_types as error:
        raise UserError(f"{key}: {str(error).partition(chr(10))[0].rstrip('.')}; {remedy}.") from error


def run_name(folder: Path) -> str:
    """Returns e.g. 2026-11-28/06-18-33."""
    outputs = OUTPUTS.absolute()
    return str(folder.relative_to(outputs)) if folder.is_relative_to(outputs) else folder.name


def read_id(folder: Path, tracker: str) -> str | None:
    run_id = read_json(folder / TRACKERS).get(tracker)
    if not isinstance(run_id, str | None):
        raise UserError(
            f"{folder / TRACKERS}: the id of {tracker}, {run_id!r}, is not text; restore or delete the file."
        )
    return run_id


def write_id(folder: Path, tracker: str, run_id: str) -> None:
    write_json(folder / TRACKERS, read_json(folder / TRACKERS) | {tracker: run_id})


# TensorBoard


class TensorBoard(TensorBoardLogger):
    """Lightning's logger, without version folders, `hp_metric`, the curve "epoch" and the file hparams.yaml.

    Signals are deferred: an exception raised inside the queue of TensorBoard's writer can leave the writer's thread
    asleep until its next flush, which is up to two minutes later, and the run would wait for it.
    """

    def __init__(self, save_dir: str):
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    @signals_deferred()
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @signals_deferred()
    def save(self) -> None:
        """Flushes the events; unlike Lightning's, it writes no hparams.yaml, because the config is in .hydra/."""
        self.experiment.flush()

    @signals_deferred()
    def finalize(self, status: str) -> None:
        super().finalize(status)

    def start(self, config: dict[str, Any], step: int) -> None:
        """Tells TensorBoard to drop the points at this step and later: they belong to an epoch that was interrupted."""
        start = SessionLog(status=SessionLog.START)
        self.experiment.file_writer.add_event(Event(step=step, session_log=start))

    def add_picture(self, tag: str, pixels: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        # Time Series sorts groups of tags by their names: the curves, of which val/ is the last, come first
        self.experiment.add_image(f"view_{tag}", pixels, step, dataformats="HWC")

    def command_to_view(self) -> str:
        return f"tensorboard --logdir {OUTPUTS}"

    def close(self, status: str) -> None:
        self.finalize(status)


# Weights & Biases


class WandB(WandbLogger):
    """`options` are other arguments of Lightning's WandbLogger and of wandb.init, e.g. tags, group, entity."""

    def __init__(self, save_dir: str, project: str, offline: bool, **options: Any):
        with needs_extra("trainer.logger.wandb", EXTRA):
            import wandb
        if offline:  # not online, where it must be able to ask for an account
            wandb.setup(wandb.Settings(mode="offline", silent=True))
        self.folder, self.offline = Path(save_dir), offline
        options.setdefault("name", run_name(self.folder))
        options.setdefault("id", read_id(self.folder, "wandb"))
        super().__init__(save_dir=save_dir, project=project, offline=offline, **options)

    @rank_zero_only
    def start(self, config: dict[str, Any], step: int) -> None:
        from wandb.errors import Error

        remedy = "correct a value of trainer.logger.wandb"
        if not self.offline:
            remedy += ", log in with wandb login, or write trainer.logger.wandb.offline=true"
        with as_user_error("trainer.logger.wandb", (Error, TypeError), remedy):
            write_id(self.folder, "wandb", self.experiment.id)
        self.log_hyperparams(config)

    @rank_zero_only
    def add_picture(self, tag: str, pixels: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        self.log_image(tag, [pixels], step)

    def command_to_view(self) -> str:
        """Offline, each start of a run that resumes has a folder of its own."""
        run, folder = self.experiment, shlex.quote(str(as_typed(self.folder)))
        return f"wandb sync {folder}/wandb/offline-run-*" if run.offline else run.url or "wandb is disabled"

    @rank_zero_only
    def close(self, status: str) -> None:
        import wandb

        wandb.finish(exit_code=0 if status == "success" else 1)


# MLflow


class MLflow(MLFlowLogger):
    """conf/trainer/logger/mlflow.yaml explains the arguments. Pictures of a local database are in outputs/mlflow."""

    def __init__(self, save_dir: str, experiment_name: str, tracking_uri: str | None):
        with needs_extra("trainer.logger.mlflow", EXTRA):
            import mlflow  # noqa: F401
        for name in ("mlflow", "alembic", "lightning.pytorch.loggers.mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 15 seconds; its default of 7 takes four minutes
        self.folder = Path(save_dir)
        run_id = read_id(self.folder, "mlflow")
        self.is_recorded = run_id is not None
        tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{OUTPUTS}/mlflow.db"
        is_local = tracking_uri.startswith("sqlite:")
        with self.errors_explained(), mlflow_setup_lock():
            super().__init__(
                experiment_name,
                run_name=run_name(self.folder),
                tracking_uri=tracking_uri,
                artifact_location=Path(OUTPUTS, "mlflow").absolute().as_uri() if is_local else None,
                run_id=run_id,
            )

    def errors_explained(self) -> contextlib.AbstractContextManager[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        remedy = "correct trainer.logger.mlflow.tracking_uri"
        if self.is_recorded:
            remedy += f", or delete {as_typed(self.folder / TRACKERS)} to track a new run"
        return as_user_error("trainer.logger.mlflow", (MlflowException, SQLAlchemyError), remedy)

    @rank_zero_only
    def start(self, config: dict[str, Any], step: int) -> None:
        is_new = not self.is_recorded
        with self.errors_explained():
            with mlflow_setup_lock():
                write_id(self.folder, "mlflow", str(self.run_id))  # creates the run, and the experiment if it is new
            self.is_recorded = True
            if is_new:  # MLflow refuses to change the value of a parameter
                self.log_hyperparams(config)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with self.errors_explained():
            super().log_metrics(metrics, step)

    @rank_zero_only
    def add_picture(self, tag: str, pixels: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        with self.errors_explained():
            self.experiment.log_image(self.run_id, Image.fromarray(pixels), f"{tag}.png")

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        with self.errors_explained():
            super().finalize(status)

    def command_to_view(self) -> str:
        uri = str(self._tracking_uri)
        return f"mlflow ui --backend-store-uri {uri}" if uri.startswith("sqlite:") else uri

    def close(self, status: str) -> None:
        self.finalize(status)


def mlflow_setup_lock() -> FileLock:
    """Held while MLflow creates its tables and the experiment: jobs that do this at the same time may fail."""
    OUTPUTS.mkdir(exist_ok=True)
    return FileLock(OUTPUTS / ".mlflow.lock")

"""Writes a run's points, config and pictures to Weights & Biases or to MLflow, by Lightning's loggers.

A resumed run continues the tracked run, whose id is in trackers.json. Points of an epoch that was interrupted remain,
beside those of its repetition.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from filelock import FileLock
from jaxtyping import UInt8
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.run_folder import OUTPUTS, TRACKERS, as_typed, write_atomically

EXTRA = "trackers"


@runtime_checkable
class Tracker(Protocol):
    """What the loggers of this project add to Lightning's."""

    def start(self, config: dict[str, Any], step: int) -> None:
        """Begins the tracked run, or continues it at a training step."""

    def add_picture(self, tag: str, pixels: UInt8[np.ndarray, "height width 3"], step: int) -> None: ...

    def how_to_look(self) -> str:
        """Returns the command, or the address, that shows the tracked run."""

    def close(self, status: str) -> None:
        """Ends the tracked run, "success" or "failed". Nothing else would do so in a forked process."""


class WandB(WandbLogger):
    """`options` are other arguments of Lightning's WandbLogger and of wandb.init, e.g. tags, group, entity."""

    def __init__(self, save_dir: str, project: str, offline: bool, **options: Any):
        with needs_extra("trainer.logger.wandb", EXTRA):
            import wandb
        if offline:  # online, it may ask for an account
            wandb.setup(wandb.Settings(mode="offline", silent=True))
        self.folder = Path(save_dir)
        options.setdefault("name", run_name(self.folder))
        options.setdefault("id", read_id(self.folder, "wandb"))
        super().__init__(save_dir=save_dir, project=project, offline=offline, **options)

    @rank_zero_only
    def start(self, config: dict[str, Any], step: int) -> None:
        from wandb.errors import Error

        with one_line("trainer.logger.wandb", Error, "log in with wandb login, or write offline=true"):
            write_id(self.folder, "wandb", self.experiment.id)
        self.log_hyperparams(config)

    @rank_zero_only
    def add_picture(self, tag: str, pixels: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        self.log_image(tag, [pixels], step)

    def how_to_look(self) -> str:
        run = self.experiment
        return f"wandb sync {as_typed(Path(run.dir).parent)}" if run.offline else run.url

    @rank_zero_only
    def close(self, status: str) -> None:
        import wandb

        wandb.finish(exit_code=0 if status == "success" else 1)


class MLflow(MLFlowLogger):
    """`tracking_uri` is a database or a server; null means that of MLFLOW_TRACKING_URI, or else outputs/mlflow.db."""

    def __init__(self, save_dir: str, experiment_name: str, tracking_uri: str | None):
        with needs_extra("trainer.logger.mlflow", EXTRA):
            import mlflow  # noqa: F401
        for name in ("mlflow", "alembic", "lightning.pytorch.loggers.mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 15 seconds, where its 7 are four minutes
        self.folder = Path(save_dir)
        tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{OUTPUTS}/mlflow.db"
        is_local = tracking_uri.startswith("sqlite:")
        with self.one_line(), alone():
            super().__init__(
                experiment_name,
                run_name=run_name(self.folder),
                tracking_uri=tracking_uri,
                artifact_location=Path(OUTPUTS, "mlflow").absolute().as_uri() if is_local else None,
                run_id=read_id(self.folder, "mlflow"),
            )

    def one_line(self) -> contextlib.AbstractContextManager[None]:
        from mlflow.exceptions import MlflowException

        remedy = "correct trainer.logger.mlflow.tracking_uri"
        if read_id(self.folder, "mlflow"):
            remedy += f", or delete {as_typed(self.folder / TRACKERS)} to track a new run"
        return one_line("trainer.logger.mlflow", MlflowException, remedy)

    @rank_zero_only
    def start(self, config: dict[str, Any], step: int) -> None:
        is_new = read_id(self.folder, "mlflow") is None
        with self.one_line():
            with alone():
                write_id(self.folder, "mlflow", str(self.run_id))  # the first run makes the experiment
            if is_new:  # MLflow refuses to change the value of a parameter
                self.log_hyperparams(config)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with self.one_line():
            super().log_metrics(metrics, step)

    @rank_zero_only
    def add_picture(self, tag: str, pixels: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        with self.one_line():
            self.experiment.log_image(self.run_id, Image.fromarray(pixels), f"{tag}.png")

    def how_to_look(self) -> str:
        uri = str(self._tracking_uri)
        return f"mlflow ui --backend-store-uri {uri}" if uri.startswith("sqlite:") else uri

    def close(self, status: str) -> None:
        self.finalize(status)


def alone() -> FileLock:
    """Lets the jobs of a sweep make MLflow's tables and the experiment one after another: at once, some would fail."""
    OUTPUTS.mkdir(exist_ok=True)
    return FileLock(OUTPUTS / ".mlflow.lock")


@contextlib.contextmanager
def one_line(key: str, error_type: type[Exception], remedy: str) -> Iterator[None]:
    try:
        yield
    except error_type as error:
        raise UserError(f"{key}: {str(error).partition(chr(10))[0].rstrip('.')}; {remedy}.") from error


def run_name(folder: Path) -> str:
    """Returns e.g. 2026-11-28/06-18-33."""
    outputs = OUTPUTS.absolute()
    return str(folder.relative_to(outputs)) if folder.is_relative_to(outputs) else folder.name


def read_id(folder: Path, tracker: str) -> str | None:
    return read_ids(folder).get(tracker)


def write_id(folder: Path, tracker: str, run_id: str) -> None:
    write_atomically(folder / TRACKERS, (json.dumps(read_ids(folder) | {tracker: run_id}, indent=2) + "\n").encode())


def read_ids(folder: Path) -> dict[str, str]:
    file = folder / TRACKERS
    try:
        return json.loads(file.read_text()) if file.exists() else {}
    except ValueError as error:
        raise UserError(f"{file}: cannot be read ({error}); restore or delete it.") from error

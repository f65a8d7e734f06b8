"""Writes a run's metrics, config and pictures to MLflow, by Lightning's logger."""

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import UInt8
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from quadrant_lstm.dashboard.tracker import EXTRA, as_user_error, read_id, run_name, write_id
from quadrant_lstm.errors import needs_extra
from quadrant_lstm.run_folder import OUTPUTS, TRACKERS, as_typed


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

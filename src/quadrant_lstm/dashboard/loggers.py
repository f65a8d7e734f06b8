"""What a run does with Lightning's loggers for TensorBoard, Weights & Biases and MLflow besides logging metrics.

A resumed run continues the tracked run, whose id is in trackers.json. The metrics of an epoch that was interrupted
remain, beside those of its repetition.
"""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from hydra.utils import get_class
from jaxtyping import UInt8
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.files import read_json, write_json
from quadrant_lstm.run_folder import OUTPUTS, TRACKERS, as_typed


def logger_arguments(node: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Adds the name, the id and the place of the tracked run to the arguments of a logger in the config."""
    ids, outputs = read_json(folder / TRACKERS), OUTPUTS.absolute()
    name = str(folder.relative_to(outputs)) if folder.is_relative_to(outputs) else folder.name
    logger_class = get_class(node["_target_"])
    if issubclass(logger_class, WandbLogger):
        with needs_extra("trainer.logger.wandb", "trackers"):
            import wandb
        if node.get("offline"):  # not online, where it must be able to ask for an account
            wandb.setup(wandb.Settings(mode="offline", silent=True))
        return {"name": name, "id": ids.get("wandb")} | node | {"save_dir": node.get("save_dir") or str(folder)}
    if issubclass(logger_class, MLFlowLogger):
        uri = node.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{OUTPUTS}/mlflow.db"
        make_mlflow_experiment(uri, node.get("experiment_name", "lightning_logs"))
        return {"run_name": name, "run_id": ids.get("mlflow")} | node | {"tracking_uri": uri}
    return node


def make_mlflow_experiment(uri: str, name: str) -> None:
    """Makes the experiment if it is new. Jobs that do this at the same time, without the lock, may fail."""
    with needs_extra("trainer.logger.mlflow", "trackers"):
        from mlflow import MlflowClient
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.ERROR)
    OUTPUTS.mkdir(exist_ok=True)
    location = Path(OUTPUTS, "mlflow").absolute().as_uri() if uri.startswith("sqlite:") else None  # of the pictures
    with FileLock(OUTPUTS / ".mlflow.lock"):
        try:
            client = MlflowClient(uri)
            if not client.get_experiment_by_name(name):
                client.create_experiment(name, artifact_location=location)
        except Exception as error:  # of MLflow, SQLAlchemy or another package
            reason = str(error).partition("\n")[0].rstrip(".")
            raise UserError(f"trainer.logger.mlflow: {reason}; correct its tracking_uri.") from error


def start_tracking(logger: Logger, config: dict[str, Any], folder: Path, step: int) -> None:
    """Begins the tracked run, or continues it at a training step, and logs the config. Raises UserError."""
    ids = read_json(folder / TRACKERS)
    try:
        if isinstance(logger, TensorBoardLogger):
            # TensorBoard drops the points at this step and later: they belong to an epoch that was interrupted
            start = SessionLog(status=SessionLog.START)
            logger.experiment.file_writer.add_event(Event(step=step, session_log=start))
        elif isinstance(logger, WandbLogger):
            write_json(folder / TRACKERS, ids | {"wandb": logger.experiment.id})
        elif isinstance(logger, MLFlowLogger):
            write_json(folder / TRACKERS, ids | {"mlflow": logger.run_id})
            if "mlflow" in ids:
                return  # MLflow refuses to change the value of a parameter
        logger.log_hyperparams(config)
    except (UserError, OSError):
        raise
    except Exception as error:  # of any type of the tracker's package
        new = f", or delete {as_typed(folder / TRACKERS)} to track a new run" if ids else ""
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"trainer.logger: {reason}; correct a value of trainer.logger{new}.") from error


def add_picture(logger: Logger, tag: str, pixels: UInt8[np.ndarray, "height width 3"], step: int) -> None:
    if isinstance(logger, TensorBoardLogger):
        # Time Series sorts groups of tags by their names: the curves, of which val/ is the last, come first
        logger.experiment.add_image(f"view_{tag}", pixels, step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(tag, [pixels], step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, Image.fromarray(pixels), f"{tag}.png")


def end_tracking(logger: Logger, status: str) -> None:
    """Ends the tracked run, with "success" or "failed". A forked process does not run the exit handlers that do it."""
    logger.finalize(status)
    if isinstance(logger, WandbLogger):
        import wandb

        wandb.finish(exit_code=0 if status == "success" else 1)

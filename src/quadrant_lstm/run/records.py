"""Records a run in its folder: its config and origin before training, its results after the test.

A run that resumes keeps its provenance.json; its config.yaml becomes the config that it resumes with.
"""

import json
import logging
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from quadrant_lstm.callbacks.checkpoint_io import read_checkpoint
from quadrant_lstm.dashboard.dashboard import Dashboard
from quadrant_lstm.dashboard.report import write_run_report
from quadrant_lstm.dashboard.tabs import hyperparameters, write_hyperparameters
from quadrant_lstm.dashboard.tensorboard import TensorBoard
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.errors import UserError
from quadrant_lstm.pages import percent
from quadrant_lstm.run.provenance import provenance
from quadrant_lstm.run_folder import CONFIG, LAST, PROVENANCE, REPORT, RESULTS, last_epoch, read_yaml, write_atomically

log = logging.getLogger(__name__)


def record_start(cfg: DictConfig, folder: Path, trainer: Any, data: SequenceDataModule) -> None:
    changes = record_config(cfg, folder)
    if not (folder / PROVENANCE).exists():
        write_json(folder / PROVENANCE, provenance(cfg, data))
    step = 0
    if (folder / LAST).exists():
        log.info(f"resuming {as_typed(folder)} after its last finished epoch{changes}")
        step = read_checkpoint(folder / LAST)["global_step"]
    for logger in tensorboards(trainer):
        logger.resume_from(step)


def record_config(cfg: DictConfig, folder: Path) -> str:
    """Writes the config if it has changed, and returns the changes in words for the log."""
    if OmegaConf.to_container(cfg) == OmegaConf.to_container(read_yaml(folder / CONFIG)):
        return ""
    write_atomically(folder / CONFIG, OmegaConf.to_yaml(cfg).encode())
    return f", with {' '.join(HydraConfig.get().overrides.task)}"


def record_results(results: dict[str, Any], cfg: DictConfig, folder: Path, trainer: Any) -> None:
    """Writes the hyperparameters to TensorBoard, then report.html, then results.json, which marks a finished run."""
    values = hyperparameters(cfg, HydraConfig.get().runtime.choices)
    for logger in tensorboards(trainer):
        write_hyperparameters(logger.experiment, values, results, trainer.global_step)
    for dashboard in (callback for callback in trainer.callbacks if isinstance(callback, Dashboard)):
        write_run_report(folder, results, dashboard.pictures, dashboard.network)
    write_json(folder / RESULTS, results)
    log.info(run_summary(results, folder))


def run_summary(results: dict[str, Any], folder: Path) -> str:
    accuracy, images = percent(results["test/accuracy"]), f"{results['test/images']:,} images"
    epochs = f"best epoch {results['best_epoch']} of {results['epochs']}"
    lines = [f"test accuracy  {accuracy}  ({images}, {epochs}, {results['seconds']:.0f} s)"]
    lines += [f"run folder     {as_typed(folder)}"]
    lines += [f"report         {as_typed(folder / REPORT)}"] if (folder / REPORT).exists() else []
    return "\n".join([*lines, "dashboard      tensorboard --logdir outputs"])


def is_finished(folder: Path, max_epochs: int) -> bool:
    """Tells whether a job of a sweep needs no more training. Raises UserError for a single run that is finished."""
    last = last_epoch(folder)
    if not (folder / RESULTS).exists() or not last or int(last["epoch"]) < max_epochs:
        return False
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        raise UserError(
            f"run: {as_typed(folder)} has finished its {last['epoch']} epochs; to train longer, add e.g. "
            f"trainer.max_epochs={max_epochs + 1}."
        )
    log.info(f"{as_typed(folder)} has already finished")
    return True


def recorded_accuracy(folder: Path) -> float:
    return json.loads((folder / RESULTS).read_text())["val/accuracy"]


def tensorboards(trainer: Any) -> list[TensorBoard]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoard)]


def as_typed(path: Path) -> Path:
    """Returns the path as a user would type it: relative to the working directory if it is inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def write_json(file: Path, content: dict[str, Any]) -> None:
    write_atomically(file, (json.dumps(content, indent=2) + "\n").encode())

"""A checked config -> a run folder: train, test the best epoch, write the results.

Where the folder holds a last.ckpt already, training goes on from there.
"""

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch.distributed import destroy_process_group

from quadrant_lstm.callbacks.checkpoint_io import read_checkpoint
from quadrant_lstm.callbacks.results import HasResults
from quadrant_lstm.dashboard.dashboard import Dashboard
from quadrant_lstm.dashboard.hyperparameters import hyperparameters, write_hyperparameters
from quadrant_lstm.dashboard.report import write_report
from quadrant_lstm.dashboard.tensorboard import TensorBoard
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.model.shapes import as_text, stages
from quadrant_lstm.processes.launch import launch
from quadrant_lstm.processes.prepare import make_ready
from quadrant_lstm.run.build import build_classifier, build_data, build_trainer
from quadrant_lstm.run.memory import check_memory
from quadrant_lstm.run.provenance import provenance
from quadrant_lstm.run.quiet import quiet_lightning
from quadrant_lstm.run_folder import (
    BEST,
    CONFIG,
    LAST,
    PROVENANCE,
    REPORT,
    RESULTS,
    held,
    last_epoch,
    read_yaml,
    write_whole,
)

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Returns val/accuracy of the best epoch, in the first process."""
    quiet_lightning()
    folder = Path(HydraConfig.get().runtime.output_dir)
    if is_finished(folder, cfg.trainer.max_epochs):
        return stored(folder)
    pl.seed_everything(cfg.seed, verbose=False)
    data = build_data(cfg)
    classifier = build_classifier(cfg, data.frame_shape, data.num_classes)
    trainer = build_trainer(cfg, folder)
    check_memory(
        classifier.network,
        data.frame_shape,
        min(cfg.data.batch_size, len(data.train_indices)),
        trainer.strategy.root_device,
        trainer.precision_plugin.forward_context,
        trainer.num_devices,
    )
    environment: Any = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.world_size > 1 and not environment.creates_processes_externally:
        launch(trainer.num_devices, folder)
        return stored(folder)
    with held(folder) if trainer.is_global_zero else contextlib.nullcontext():
        accuracy = fit_and_test(cfg, folder, trainer, classifier, data)
    if trainer.world_size > 1:
        destroy_process_group()  # left to the end of the process, its threads abort it now and then
    return accuracy


def fit_and_test(
    cfg: DictConfig, folder: Path, trainer: Any, classifier: Classifier, data: SequenceDataModule
) -> float | None:
    network = as_text(stages(classifier.network, data.frame_shape))
    log.info(network)
    for dashboard in dashboards(trainer):
        dashboard.network = network
    start = str(folder / LAST) if (folder / LAST).exists() else None
    if trainer.is_global_zero:
        begin(cfg, folder, trainer, data)
    make_ready()
    try:
        trainer.fit(classifier, datamodule=data, ckpt_path=start, weights_only=True)
        # before the test, which loads the state of the best epoch into all callbacks
        trained = training_results(trainer) if trainer.is_global_zero else {}
        trainer.test(classifier, datamodule=data, ckpt_path=str(folder / BEST), weights_only=True, verbose=False)
    except SystemExit as end:  # Lightning's answer to Ctrl-C is 1; others are ours, or SLURM's, to a signal
        log.info(f"interrupted; go on with: python train.py run={shown(folder)}")
        if end.code != 1:
            raise
        raise KeyboardInterrupt from None

    if trainer.is_global_zero:
        parameters = sum(parameter.numel() for parameter in classifier.network.parameters())
        finish(classifier.test_results() | trained | {"parameters": parameters}, cfg, folder, trainer)
    return trained.get("val/accuracy")


def begin(cfg: DictConfig, folder: Path, trainer: Any, data: SequenceDataModule) -> None:
    """What the folder records before the first step, of a new run or of one that goes on."""
    changed = keep_changes(cfg, folder)
    if not (folder / PROVENANCE).exists():
        write_json(folder / PROVENANCE, provenance(cfg, data))
    step = 0
    if (folder / LAST).exists():
        log.info(f"going on with {shown(folder)} after its last finished epoch{changed}")
        step = read_checkpoint(folder / LAST)["global_step"]
    for logger in tensorboards(trainer):
        logger.go_on_from(step)


def finish(results: dict[str, Any], cfg: DictConfig, folder: Path, trainer: Any) -> None:
    values = hyperparameters(cfg, HydraConfig.get().runtime.choices)
    for logger in tensorboards(trainer):
        write_hyperparameters(logger.experiment, values, results, trainer.global_step)
    for dashboard in dashboards(trainer):
        write_report(folder, results, dashboard.pictures, dashboard.network)
    write_json(folder / RESULTS, results)
    log.info(last_screen(results, folder))


def tensorboards(trainer: Any) -> list[TensorBoard]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoard)]


def dashboards(trainer: Any) -> list[Dashboard]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Dashboard)]


def is_finished(folder: Path, max_epochs: int) -> bool:
    """A job of a sweep is then left as it is; a run that is to go on is refused."""
    done = last_epoch(folder)
    if not (folder / RESULTS).exists() or not done or int(done["epoch"]) < max_epochs:
        return False
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        raise UserError(
            f"run: {shown(folder)} has finished its {done['epoch']} epochs; to train longer, add a higher "
            "trainer.max_epochs."
        )
    log.info(f"{shown(folder)} was done before")
    return True


def stored(folder: Path) -> float:
    return json.loads((folder / RESULTS).read_text())["val/accuracy"]


def keep_changes(cfg: DictConfig, folder: Path) -> str:
    """The run's config.yaml is the one that it last went on with. Returns what was changed."""
    if OmegaConf.to_container(cfg) == OmegaConf.to_container(read_yaml(folder / CONFIG)):
        return ""
    write_whole(folder / CONFIG, OmegaConf.to_yaml(cfg).encode())
    return f", with {' '.join(HydraConfig.get().overrides.task)}"


def training_results(trainer: Any) -> dict[str, Any]:
    found = [callback.results() for callback in trainer.callbacks if isinstance(callback, HasResults)]
    return {name: value for results in found for name, value in results.items()}


def last_screen(results: dict[str, Any], folder: Path) -> str:
    return "\n".join(
        (
            f"test accuracy  {results['test/accuracy']:.2%}  ({results['test/images']:,} images, best of "
            f"{results['epochs']} epochs: {results['best_epoch']}, {results['seconds']:.0f} s)",
            f"run folder     {shown(folder)}",
            *([f"report         {shown(folder / REPORT)}"] if (folder / REPORT).exists() else []),
            "dashboard      tensorboard --logdir outputs",
        )
    )


def shown(folder: Path) -> Path:
    """As a user would type it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def write_json(file: Path, content: dict[str, Any]) -> None:
    write_whole(file, (json.dumps(content, indent=2) + "\n").encode())

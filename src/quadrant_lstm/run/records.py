"""Records a run in its folder: its config and origin before training, its results after the test.

A run that resumes keeps its provenance.json; its config.yaml becomes the config that it resumes with.
"""

import contextlib
import logging
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from quadrant_lstm.callbacks.checkpoints import metric_columns, read_checkpoint
from quadrant_lstm.dashboard.dashboard import Dashboard, hyperparameters, log_results
from quadrant_lstm.dashboard.loggers import command_to_view, end_tracking, start_tracking
from quadrant_lstm.dashboard.report import write_run_report
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_yaml, write_atomically, write_json
from quadrant_lstm.model.classifier import total_arguments
from quadrant_lstm.run.build import bf16_instructions
from quadrant_lstm.run_folder import (
    BEST,
    CONFIG,
    LAST,
    METRICS,
    PROVENANCE,
    REPORT,
    RESULTS,
    SKIPPED,
    as_typed,
    check_present,
    last_epoch,
    read_overrides,
    read_results,
    read_rows,
)
from quadrant_lstm.text import counted, percent

# What is needed to reproduce a run


PACKAGES = ("quadrant-lstm", "torch", "lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy")


def provenance(cfg: DictConfig, data: SequenceDataModule) -> dict[str, Any]:
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv),
        "git": git_state(Path(__file__).parent),
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES}
        | {"torch": torch.__version__},  # includes the build, e.g. +cu128
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
        "data": {"dataset": cfg.data.get("dataset", "clips"), "root": cfg.data.root, "sha256": data.sha256()},
        "seed": cfg.seed,
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Returns the commit of the folder's checkout and the files changed since, or None outside a checkout.

    outputs/ is left out: git tracks an empty file in it, which is missing if somebody has removed the folder.
    """
    options: dict[str, Any] = {"cwd": folder, "text": True, "stderr": subprocess.DEVNULL}
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--", ":(top,exclude)outputs"])
    try:
        commit, changed = (subprocess.check_output(command, **options) for command in commands)
        return {"commit": commit.strip(), "changed": changed.splitlines()}
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """Returns the processor's model (its architecture outside Linux) and the instructions that torch uses."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    fields = dict(re.findall(r"(?m)^(model name|cpu family|model)\s*: (.*)", text))
    named = "{model name} (family {cpu family}, model {model})"  # many virtual machines share one name
    model = named.format(**fields) if len(fields) == 3 else platform.machine()
    return ", ".join([model, torch.backends.cpu.get_cpu_capability(), *bf16_instructions()])


# The folder


log = logging.getLogger(__name__)
EARLY_STOPPING = "trainer.callbacks.early_stopping"


def check_resumable(folder: Path, trained: SequenceSpec | None) -> None:
    """Raises UserError if a file that a resumed run needs is lost or damaged. `trained` is None without a last.ckpt."""
    weights = next((file for file in (BEST, LAST) if (folder / file).exists()), None)
    remedy = "restore it, or begin a new run" + (f" with init={as_typed(folder / weights)}" if weights else "")
    read_overrides(folder)  # raises UserError if they are damaged; they are needed at the end
    rows = read_rows(folder / METRICS)
    if trained is None:
        # a kill in the first epoch may leave a best.ckpt and a row of it, which are written before last.ckpt
        best = read_checkpoint(folder / BEST)["epoch"] if (folder / BEST).exists() else 0
        if best or len(rows) > 1 or (folder / RESULTS).exists():
            raise UserError(f"{folder / LAST}: is missing, but epochs of this run have finished; {remedy}.")
        return
    header, columns = {name for row in rows for name in row}, set(metric_columns(trained.num_steps))
    if rows and header != columns:
        raise UserError(f"{folder / METRICS}: its header is damaged at {min(header ^ columns)!r}; {remedy}.")
    epochs = read_checkpoint(folder / LAST)["epoch"] + 1
    if lost := set(range(1, epochs + 1)) - {int(row["epoch"]) for row in rows}:
        raise UserError(f"{folder / METRICS}: has no row of epoch {min(lost)}, which has finished; {remedy}.")
    if (folder / BEST).exists():
        read_checkpoint(folder / BEST)  # raises UserError if it is damaged
    elif any(row.get("val/accuracy") for row in rows):
        raise UserError(f"{folder / BEST}: is missing, but epochs of this run have finished; {remedy}.")


def record_start(cfg: DictConfig, folder: Path, trainer: Any, data: SequenceDataModule) -> None:
    changes = record_config(cfg, folder)
    if not (folder / PROVENANCE).exists():
        write_json(folder / PROVENANCE, provenance(cfg, data))
    if data.skipped:
        write_atomically(folder / SKIPPED, "".join(f"{error}\n" for error in data.skipped).encode())
        clips = counted(len(data.skipped), "clip")
        log.info(f"data.skip_broken: left out {clips}; {as_typed(folder / SKIPPED)} lists them")
    step = 0
    if (folder / LAST).exists():
        log.info(f"resuming {as_typed(folder)} after its last finished epoch{changes}")
        step = read_checkpoint(folder / LAST)["global_step"]
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    for logger in trainer.loggers:
        start_tracking(logger, config, folder, step)


def record_config(cfg: DictConfig, folder: Path) -> str:
    """Writes the config if it has changed, and returns the changes in words for the log."""
    if OmegaConf.to_container(cfg) == OmegaConf.to_container(read_yaml(folder / CONFIG)):
        return ""
    write_atomically(folder / CONFIG, OmegaConf.to_yaml(cfg).encode())
    return f", with {' '.join(HydraConfig.get().overrides.task)}"


def record_results(results: dict[str, Any], cfg: DictConfig, folder: Path, trainer: Any) -> None:
    """Writes the results to the loggers, then report.html, then results.json, which marks a finished run."""
    check_present(folder)
    log_results(trainer, hyperparameters(cfg, read_overrides(folder)), results)
    for callback in trainer.callbacks:
        if isinstance(callback, Dashboard):
            write_run_report(folder, results, callback)
    write_json(folder / RESULTS, results)
    log.info(run_summary(results, folder, trainer.loggers))


@contextlib.contextmanager
def closing(loggers: Sequence[Any]) -> Iterator[None]:
    """Ends the tracked runs after the block."""
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        with contextlib.ExitStack() as stack:  # closes the others too if one cannot be closed
            if status == "failed":
                stack.enter_context(contextlib.suppress(OSError))  # the error that ended the run is reported
            for logger in loggers:
                stack.callback(end_tracking, logger, status)


def run_summary(results: dict[str, Any], folder: Path, loggers: Sequence[Any]) -> str:
    accuracy, samples = percent(results["test/accuracy"]), f"{results['test/images']:,} samples"
    epochs = f"{results['keep']} epoch {results['best_epoch']} of {results['epochs']}"
    lines = [f"test accuracy  {accuracy}  ({samples}, {epochs}, {results['seconds']:.0f} s)"]
    lines += [f"run folder     {as_typed(folder)}"]
    lines += [f"report         {as_typed(folder / REPORT)}"] if (folder / REPORT).exists() else []
    commands = (command_to_view(logger, folder) for logger in loggers)
    lines += [f"dashboard      {command}" for command in commands if command]
    return "\n".join(lines)


def is_finished(cfg: DictConfig, folder: Path) -> bool:
    """Tells whether a job of a sweep needs no more training. Raises UserError for a single run that is finished."""
    last = last_epoch(folder)
    if not read_results(folder) or not last:
        return False
    epochs = int(last["epoch"])
    is_short = epochs < cfg.trainer.max_epochs
    if is_short and not stopped_early(cfg, folder):
        return False
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        finished = f"run: {as_typed(folder)} has finished its {epochs} epochs"
        if is_short:
            remedy = "raise trainer.callbacks.early_stopping.patience or leave that callback out"
            raise UserError(f"{finished}, by early stopping; to train longer, {remedy}.")
        if total_arguments(get_class(cfg.schedule._target_)):
            raise UserError(
                f"{finished}, for which its schedule was made; to train longer, start a new run, e.g. with init="
                f"{as_typed(folder)}."
            )
        raise UserError(f"{finished}; to train longer, add e.g. trainer.max_epochs={epochs + 1}.")
    log.info(f"{as_typed(folder)} has already finished")
    return True


def stopped_early(cfg: DictConfig, folder: Path) -> bool:
    """Tells whether the run was ended by early stopping as this config has it."""
    now, before = (OmegaConf.select(each, EARLY_STOPPING) for each in (cfg, read_yaml(folder / CONFIG)))
    return read_results(folder).get("stopped_early", False) and now == before

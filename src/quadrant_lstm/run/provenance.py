"""Tells what is needed to reproduce a run: the commit, versions, the command, the machine, the data, the seed."""

import platform
import re
import shlex
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.processes.launch import num_threads
from quadrant_lstm.run.build import bf16_instructions
from quadrant_lstm.run_folder import TABLES

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
            "threads": num_threads(),
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
        "data": {
            "dataset": cfg.data.get("dataset") or TABLES[data.kind].stem,
            "root": cfg.data.root,
            "sha256": data.sha256(),
            "samples": data.summary,
            "split": data.origin,
        },
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

"""A run that is killed anywhere and goes on ends as the one that was not."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quadrant_lstm.run.checkpoint import read_checkpoint
from tests.conftest import ROOT, TINY, hears_ctrl_c, left_behind, run_folder, write_idx_folder

DRAWN = ("data.augmentation.rotation=15", "data.augmentation.erase=0.5", "schedule=onecycle", "ema_decay=0.99")
OPTIONS = ("data=idx", "data.root=tiny", *TINY, *DRAWN)
EPOCHS = 8
IMAGES = 4000


def start(*arguments: str, cwd: Path) -> subprocess.Popen:
    command = [sys.executable, ROOT / "train.py", *arguments]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=hears_ctrl_c
    )


def until_done(cwd: Path, after: float) -> int:
    """Kill it after so many seconds, then let it go on; the number of epochs that it had finished."""
    process = start(*OPTIONS, f"trainer.max_epochs={EPOCHS}", cwd=cwd)
    time.sleep(after)
    process.kill()
    process.communicate()
    done = 0
    if list(cwd.glob("outputs/*/*/checkpoints/last.ckpt")):
        run = run_folder(cwd)
        done = read_checkpoint(run / "checkpoints" / "last.ckpt")["epoch"] + 1
        if (run / "results.json").exists():
            return done
        process = start(f"run={run}", cwd=cwd)
    else:
        for started in cwd.glob("outputs/*/*"):
            started.rename(cwd / "nothing")
        process = start(*OPTIONS, f"trainer.max_epochs={EPOCHS}", cwd=cwd)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return done


def records(run: Path) -> dict[str, object]:
    """What must be equal: weights and all they come from, metrics, results, TensorBoard's points; speed is not."""
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "train/samples_per_second"} for row in csv.DictReader(file)]
    results = json.loads((run / "results.json").read_text())
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "train/samples_per_second"]
    return {
        "weights": {
            (state, name): weights.numpy().tobytes()
            for state in ("state_dict", "current_model_state")  # their average, and they
            for name, weights in checkpoint[state].items()
        },
        "schedule": checkpoint["lr_schedulers"],
        "optimizer": [
            {name: torch.as_tensor(value).numpy().tobytes() for name, value in state.items()}
            for state in checkpoint["optimizer_states"][0]["state"].values()
        ],
        "metrics": rows,
        "results": {k: v for k, v in results.items() if k not in ("seconds", "samples_per_second")},
        "scalars": {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in sorted(tags)},
    }


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.reliability)])
@pytest.mark.timeout(3600)
def test_a_killed_run_ends_as_the_uninterrupted_one(kills, tmp_path, record_figure):
    whole = tmp_path / "whole"
    write_idx_folder(whole / "tiny", train=IMAGES)
    before = time.monotonic()
    process = start(*OPTIONS, f"trainer.max_epochs={EPOCHS}", cwd=whole)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    seconds = time.monotonic() - before
    expected = records(run_folder(whole))
    assert len(expected["scalars"]["train/batch_loss"]) > 4

    draw, equal, epochs = random.Random(kills), 0, []
    for number in range(kills):
        cwd = tmp_path / str(number)
        write_idx_folder(cwd / "tiny", train=IMAGES)
        epochs.append(until_done(cwd, seconds * (0.8 if kills == 1 else draw.random())))
        found = records(run_folder(cwd))
        for name in expected:
            assert found[name] == expected[name], f"kill {number}, after {epochs[-1]} epochs: another {name}"
        equal += 1
    record_figure(
        f"{equal} of {kills} killed runs equal to the uninterrupted one (epochs done when killed: {sorted(epochs)})"
    )


ALONE, SWEEP = ("trainer=default",), ("-m", "seed=1,2")
PROCESSES = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


@pytest.mark.parametrize(
    ("name", "how"),
    [("SIGTERM", ALONE), ("SIGINT", SWEEP), ("SIGTERM", PROCESSES),
     *(pytest.param(*case, marks=pytest.mark.reliability)
       for case in (("SIGINT", ALONE), ("SIGTERM", SWEEP), ("SIGINT", PROCESSES)))],
    ids=lambda value: value if isinstance(value, str) else value[0],
)  # fmt: skip
def test_a_signal_ends_a_run_at_once_and_it_can_go_on(name, how, tmp_path):
    write_idx_folder(tmp_path / "tiny", train=IMAGES)
    process = start(*how, *OPTIONS, "trainer.max_epochs=1000", cwd=tmp_path)
    while not any(read_checkpoint(last)["epoch"] for last in tmp_path.glob("outputs/**/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(getattr(signal, name))
    sent = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - sent < 10
    assert process.returncode == 128 + getattr(signal, name), output
    assert "Traceback" not in output
    (last,) = tmp_path.glob("outputs/**/last.ckpt")
    run = last.parent.parent.relative_to(tmp_path)
    assert (
        f"python train.py sweep={run.parent}" if how == SWEEP else f"go on with: python train.py run={run}"
    ) in output
    assert read_checkpoint(last)["epoch"] >= 1
    assert not left_behind(tmp_path)

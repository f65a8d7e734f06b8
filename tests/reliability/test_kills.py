"""Tests that a run that is killed anywhere and resumed ends like an uninterrupted run."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quadrant_lstm.run_folder import read_results, read_rows
from tests import folders
from tests.folders import TINY, checkpoint_of, run_folder, sweep_folder, write_idx_folder
from tests.scripts import Script, script, succeeds, waiting_after

RANDOM = ("data.augmentation.rotation=15", "data.augmentation.erase=0.5", "trainer.callbacks.ema.decay=0.99")
OPTIONS = ("data=idx", "data.root=tiny", *TINY, *RANDOM, "schedule=onecycle")
EPOCHS = 8
IMAGES = 1000
SPEED = ("train/samples_per_second", "train/epoch_seconds")


def kill_and_resume(cwd: Path, seconds: float | None) -> int:
    """Kills a run after so many seconds, or after an epoch, and resumes it. Returns the number of epochs it had
    finished when killed.
    """
    command = ("train.py", *OPTIONS, f"trainer.max_epochs={EPOCHS}")
    process = Script(*command, cwd=cwd, before=waiting_after(3) if seconds is None else "")
    if seconds is None:
        next(line for line in process.lines() if line.startswith("epoch 3/"))
    else:
        time.sleep(seconds)
    process.kill()
    finished = 0
    if list(cwd.glob("outputs/*/*/checkpoints/last.ckpt")):
        run = run_folder(cwd)
        finished = checkpoint_of(run)["epoch"] + 1
        if (run / "results.json").exists():
            return finished
        process = Script("train.py", f"run={run}", cwd=cwd)
    else:
        for started in cwd.glob("outputs/*/*"):
            started.rename(cwd / "empty")
        process = Script(*command, cwd=cwd)
    assert process.wait().returncode == 0, process.stderr
    return finished


def records(run: Path) -> dict[str, object]:
    """Returns what must be equal: the state of training, metrics, results and TensorBoard's points, except speed."""
    checkpoint = checkpoint_of(run)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in SPEED]
    return {
        "weights": {
            (state, name): weights.numpy().tobytes()
            for state in ("state_dict", "current_model_state")  # the average, and the weights themselves
            for name, weights in checkpoint[state].items()
        },
        "schedule": checkpoint["lr_schedulers"],
        "optimizer": [
            {name: torch.as_tensor(value).numpy().tobytes() for name, value in state.items()}
            for state in checkpoint["optimizer_states"][0]["state"].values()
        ],
        "metrics": [{k: v for k, v in row.items() if k not in SPEED} for row in read_rows(run / "metrics.csv")],
        "results": read_results(run) | dict.fromkeys(("seconds", "samples_per_second")),
        "scalars": {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in sorted(tags)},
    }


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.reliability)])
@pytest.mark.timeout(3600)
def test_a_killed_and_resumed_run_equals_an_uninterrupted_run(kills, tmp_path, record_figure):
    whole = tmp_path / "whole"
    write_idx_folder(whole / "tiny", train=IMAGES)
    if kills > 1:
        script("train.py", "--help", cwd=whole)  # the first script takes longer
    before = time.monotonic()
    succeeds("train.py", *OPTIONS, f"trainer.max_epochs={EPOCHS}", cwd=whole)
    seconds = time.monotonic() - before
    expected = records(run_folder(whole))
    assert len(expected["scalars"]["train/batch_loss"]) > 4

    draw, equal, epochs = random.Random(kills), 0, []
    for number in range(kills):
        cwd = tmp_path / str(number)
        write_idx_folder(cwd / "tiny", train=IMAGES)
        epochs.append(kill_and_resume(cwd, None if kills == 1 else seconds * draw.random()))
        assert kills > 1 or 0 < epochs[0] < EPOCHS
        found = records(run_folder(cwd))
        for name in expected:
            assert found[name] == expected[name], f"kill {number}, after {epochs[-1]} epochs: {name} differ"
        equal += 1
    done = f"epochs done when killed: {sorted(epochs)}"
    record_figure(f"{equal} of {kills} killed runs equal to the uninterrupted one ({done})")


SWEEP, PROCESSES = ("-m", "seed=1,2"), ("trainer.accelerator=cpu", "trainer.devices=2")


@pytest.mark.parametrize(
    ("name", "how"),
    [("SIGINT", SWEEP),
     *(pytest.param(*case, marks=pytest.mark.reliability)
       for case in (("SIGTERM", SWEEP), ("SIGINT", PROCESSES), ("SIGTERM", PROCESSES)))],
    ids=lambda value: value if isinstance(value, str) else value[0],
)  # fmt: skip
def test_a_signal_ends_all_processes_at_once_and_they_can_be_resumed(name, how, tmp_path):
    write_idx_folder(tmp_path / "tiny", train=IMAGES)
    process = Script("train.py", *how, *OPTIONS, "trainer.max_epochs=1000", cwd=tmp_path)
    process.wait_for("outputs/**/last.ckpt")
    process.send(getattr(signal, name))
    sent = time.monotonic()
    process.wait()
    assert time.monotonic() - sent < 10
    output = process.stdout + process.stderr
    assert process.returncode == 128 + getattr(signal, name), output
    assert "Traceback" not in output
    (last,) = tmp_path.glob("outputs/**/last.ckpt")
    run = last.parents[1].relative_to(tmp_path)
    says = f"python train.py sweep={run.parent}" if how == SWEEP else f"resume with: python train.py run={run}"
    assert says in output
    assert checkpoint_of(last.parents[1])
    assert not folders.remaining_processes(tmp_path)


@pytest.mark.reliability
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("killed", ["launcher", "job", "group"])
def test_a_sweep_that_is_killed_at_random_moments_equals_an_uninterrupted_sweep(killed, tmp_path, record_figure):
    words = ("-m", *OPTIONS, "trainer.max_epochs=4", "seed=1,2", "hydra.launcher.n_jobs=2")
    seconds, expected, draw, interrupted, number = 0.0, [], random.Random(killed), 0, 0
    while interrupted < 20:
        cwd, number = tmp_path / str(number), number + 1
        write_idx_folder(cwd / "tiny", train=IMAGES)
        process = Script("train.py", *words, cwd=cwd, before="import os; os.setpgrp()")
        process.wait_for("outputs/sweeps/*/*/?/.hydra/config.yaml")
        sweep, start = sweep_folder(cwd), time.monotonic()
        if expected:
            time.sleep(seconds * draw.random())
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the sweep has ended
                jobs = folders.children(process.pid)
                if killed == "group":
                    os.killpg(process.pid, signal.SIGKILL)
                elif jobs:
                    os.kill(process.pid if killed == "launcher" else draw.choice(jobs), signal.SIGKILL)
            process.wait()
            folders.wait_until_no_process_remains(cwd)
            output = process.stdout + process.stderr
            assert "Traceback" not in output, output
            if process.returncode == 0:
                continue  # it was no longer training
            interrupted += 1
            process = Script("train.py", f"sweep={sweep}", cwd=cwd)
        done = process.wait()
        assert done.returncode == 0, done.stderr
        seconds = seconds or time.monotonic() - start
        trained = [records(sweep / job) for job in "01"]
        expected = expected or trained
        assert trained == expected, f"kill {interrupted}"
        assert (sweep / "sweep.html").exists()
    record_figure(f"20 of 20 sweeps whose {killed} was killed equal the uninterrupted one")

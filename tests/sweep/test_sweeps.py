"""Sweeps by train.py -m, as processes."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quadrant_lstm.run.checkpoint import read_checkpoint
from tests.conftest import ROOT, TINY, left_behind, script, write_idx_folder

DATA = ("data=idx", "data.root=tiny", *TINY)


def sweep_folder(cwd: Path) -> Path:
    (folder,) = (cwd / "outputs/sweeps").glob("*/*")
    return folder


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_job_that_cannot_be_fails_alone_and_is_named(tmp_path):
    write_idx_folder(tmp_path / "tiny")
    done = script("train.py", "-m", *DATA, "model.kernel_size=3,9", "seed=1,2", cwd=tmp_path)
    sweep = sweep_folder(tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "sweep: 2 of 4 jobs failed: 2 (model.kernel_size=9 seed=1): model.kernel_size: 9 does"
    )
    assert f"python train.py sweep={sweep.relative_to(tmp_path)}" in done.stderr
    with (sweep / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["job"], row["model.kernel_size"], row["seed"]) for row in rows] == [
        ("1", "0", "3", "1"), ("1", "1", "3", "2"), ("2", "2", "9", "1"), ("2", "3", "9", "2"),
    ]  # fmt: skip
    assert all(float(row["val/accuracy"]) > 0 for row in rows[:2])
    assert all(row["error"].startswith("model.kernel_size: 9") for row in rows[2:])
    page = (sweep / "sweep.html").read_text()
    assert page.count("<svg") == 2
    assert "job 2 model.kernel_size=9 seed=1" in page
    assert not [word for word in ("http://", "https://") if f'src="{word}' in page or f'href="{word}' in page]


def test_a_killed_job_fails_alone_and_goes_on_from_its_last_epoch_with_the_sweep(tmp_path):
    write_idx_folder(tmp_path / "tiny", train=2000)
    command = [sys.executable, ROOT / "train.py", "-m", *DATA, "trainer.max_epochs=12", "seed=1,2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    last = []
    while process.poll() is None and not last:
        last = list(tmp_path.glob("outputs/sweeps/*/*/0/checkpoints/last.ckpt"))
        time.sleep(0.02)
    (job,) = children(process.pid)
    os.kill(job, signal.SIGKILL)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert errors.startswith("sweep: 1 of 2 jobs failed: 0 (seed=1): was killed by SIGKILL"), errors
    sweep = sweep_folder(tmp_path)
    assert "ERROR was killed by SIGKILL" in (sweep / "0/train.log").read_text()
    assert (sweep / "1/results.json").exists()
    before = {file: file.stat().st_mtime_ns for file in (sweep / "1").rglob("*") if file.is_file()}

    again = script("train.py", "sweep=latest", "hydra.launcher.n_jobs=2", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "job 0  seed=1  goes on after epoch " in again.stdout
    assert "job 1  seed=2  was done before" in again.stdout
    assert {file: file.stat().st_mtime_ns for file in (sweep / "1").rglob("*") if file.is_file()} == before
    assert read_checkpoint(sweep / "0/checkpoints/last.ckpt")["epoch"] + 1 == 12
    with (sweep / "0/metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(epoch) for epoch in range(1, 13)]
    assert sweep_folder(tmp_path) == sweep

    other = script("train.py", f"sweep={sweep}", "seed=3", cwd=tmp_path)
    assert other.returncode == 2
    assert "leave them out, or start a new sweep without sweep=." in other.stderr


def test_no_job_outlives_its_sweep(tmp_path):
    write_idx_folder(tmp_path / "tiny", train=2000)
    command = [sys.executable, ROOT / "train.py", "-m", *DATA, "trainer.max_epochs=1000", "seed=1,2"]
    process = subprocess.Popen([*command, "hydra.launcher.n_jobs=2"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    while len(list(tmp_path.glob("outputs/sweeps/*/*/*/checkpoints/last.ckpt"))) < 2 and process.poll() is None:
        time.sleep(0.05)
    assert len(children(process.pid)) == 2
    process.kill()
    process.wait()
    time.sleep(0.5)
    assert not left_behind(tmp_path)


@pytest.mark.parametrize(
    ("swept", "status", "says"),
    [
        ("model.lstm_units=5,6", 0, "2 jobs, about "),
        ("model.kernel_size=3,9", 2, "cannot be: model.kernel_size: 9 does"),
    ],
)
def test_a_plan_starts_nothing(swept, status, says, tmp_path):
    write_idx_folder(tmp_path / "tiny")
    done = script("train.py", "-m", *DATA, swept, "plan=true", cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert says in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["tiny"]


def test_a_plan_counts_parameters_and_steps(tmp_path):
    done = script("train.py", "-m", "model.lstm_units=5,16", "trainer=smoke", "plan=true", cwd=tmp_path)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0][:3] == ["job", "model.lstm_units", "parameters"]
    assert rows[1][:5] == ["0", "5", "93,718", "5", "2"]  # parameters, steps an epoch, epochs
    assert rows[2][:3] == ["1", "16", f"{93718 - 83340 + 4 * 16 * (4160 + 16 + 2) + 11 * 50:,}"]


@pytest.mark.parametrize(
    ("words", "line"),
    [(("sweep=nowhere",), "sweep: nowhere has no multirun.yaml; give a folder like"),
     (("sweep=latest",), "sweep: latest, but "), (("sweep=latest", "run=latest"), "run: goes on with one run"),
     (("plan=maybe",), "plan: 'maybe' is not true; write plan=true"),
     (("-m", "model.lstm_unit=5,6"), "model.lstm_unit: there is no such key; did you mean model.lstm_units?")],
)  # fmt: skip
def test_a_mistake_leaves_nothing_behind(words, line, tmp_path):
    done = script("train.py", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())

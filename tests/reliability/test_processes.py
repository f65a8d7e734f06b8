"""Runs on several processes have the same results as on one, and end when one process fails."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from quadrant_lstm.run.load import evaluate
from quadrant_lstm.run_folder import read_results
from tests import folders
from tests.folders import TINY, checkpoint_of, children, run_folder, sweep_folder, tiny_data
from tests.scripts import Script, succeeds

CPU = ("trainer.accelerator=cpu",)


@pytest.mark.parametrize("processes", [pytest.param(2, marks=pytest.mark.reliability), 3])
def test_each_of_the_10000_test_images_is_counted_once(processes, tmp_path):
    done = succeeds(
        "train.py", *CPU, f"trainer.devices={processes}", "trainer.max_epochs=1", "trainer.limit_train_batches=2",
        "trainer.limit_val_batches=2", "data.batch_size=32", "model.filters=[4]", "~trainer.callbacks.dashboard",
        cwd=tmp_path,
    )  # fmt: skip
    run = run_folder(tmp_path)
    results = read_results(run)
    assert results["test/images"] == 10000
    alone = evaluate(run, "cpu")
    assert alone["test/accuracy"] == results["test/accuracy"]
    assert alone["test/loss"] == pytest.approx(results["test/loss"], abs=1e-6)
    assert done.stdout.count("epoch 1/1") == 1, "each process logs"


def test_two_processes_at_half_the_batch_size_train_like_one(tmp_path, record_figure):
    """Also where the classes, of which there are unequally many samples, have weights."""
    options = (*tiny_data(tmp_path, train=840), *TINY, "model.dropout=0", "trainer.max_epochs=1")  # 50 steps
    folders.write_idx(tmp_path / "tiny/train-labels-idx1-ubyte", np.arange(840) % 3 % (1 + np.arange(840) % 4))
    saved, results = [], []
    for number, words in enumerate((("data.batch_size=16",), ("data.batch_size=8", *CPU, "trainer.devices=2"))):
        cwd = tmp_path / str(number)
        cwd.mkdir()
        succeeds("train.py", *options, "class_weights=balanced", *words, cwd=cwd)
        saved.append(checkpoint_of(run_folder(cwd)))
        results.append(read_results(run_folder(cwd)))
    assert [checkpoint["global_step"] for checkpoint in saved] == [50, 50]
    one, two = (checkpoint["state_dict"] for checkpoint in saved)
    difference = max((one[name] - two[name]).abs().max().item() for name in one)
    record_figure(f"two processes are within {difference:.0e} of one after 50 steps")
    assert difference < 1e-5
    for name in ("val/balanced_accuracy", "val/macro_f1", "test/balanced_accuracy", "test/macro_f1"):
        assert results[0][name] == pytest.approx(results[1][name], abs=1e-6)


def test_a_failed_process_ends_its_job_and_not_the_sweep(tmp_path, record_figure):
    tiny = (override for override in TINY if "max_epochs" not in override)
    options = (*tiny_data(tmp_path), *tiny, *CPU, "trainer.devices=2", "trainer.max_epochs=100000,2")
    process = Script("train.py", "-m", *options, cwd=tmp_path)
    process.wait_for("outputs/sweeps/*/*/0/checkpoints/last.ckpt")
    (job,) = children(process.pid)
    os.kill(children(job)[1], signal.SIGKILL)
    start = time.monotonic()
    line = next(line for line in process.lines() if "was killed by SIGKILL" in line)
    took = time.monotonic() - start
    assert line.startswith("job 0  trainer.max_epochs=100000  process 2 of 2 was killed by SIGKILL")
    errors = process.wait().stderr
    record_figure(f"a process of a sweep's job is killed: the job ends after {took:.1f} s, the sweep continues")
    assert took < 30
    assert process.returncode == 2
    assert errors.startswith("sweep: 1 of 2 jobs failed: 0 (trainer.max_epochs=100000): process 2 of 2 was killed")
    sweep = sweep_folder(tmp_path)
    names = {path.name for path in sweep.iterdir()}
    assert names == {".lock", "0", "1", "conf", "multirun.yaml", "sweep.csv", "sweep.html"}
    assert not list(tmp_path.glob("outputs/2*"))  # the folder of a process that starts a run of its own
    results = read_results(sweep / "1")
    assert (results["epochs"], results["test/images"]) == (2, 70)
    assert not folders.remaining_processes(tmp_path)


PLANT = """
import signal
def plant(*_):
    from quadrant_lstm.model.classifier import Classifier
    def training_step(self, batch, batch_idx):
        raise RuntimeError("a bug of the user's code")
    Classifier.training_step = training_step
signal.signal(signal.SIGUSR1, plant)
"""


@pytest.fixture
def two_processes(tmp_path):
    """A run that has finished its first epoch, and the ids of its two processes; SIGUSR1 makes the next step raise."""
    process = Script(
        "train.py", *tiny_data(tmp_path), *TINY, *CPU, "trainer.devices=2", "trainer.max_epochs=100000",
        "trainer.strategy.timeout=5", cwd=tmp_path, before=PLANT,
    )  # fmt: skip
    assert any(line.startswith("epoch 1/") for line in process.lines()), process.stderr
    yield process, children(process.pid)
    process.kill()


RAISES = (signal.SIGUSR1, "failed with RuntimeError: a bug of the user's code")
IS_KILLED = (signal.SIGKILL, "was killed by SIGKILL")
HANGS = (signal.SIGSTOP, "did not answer within 5 s (trainer.strategy.timeout)")


@pytest.mark.parametrize(
    ("rank", "fault"),
    [(1, RAISES), (1, HANGS), (0, IS_KILLED),
     *(pytest.param(*case, marks=pytest.mark.reliability) for case in ((0, RAISES), (1, IS_KILLED), (0, HANGS)))],
    ids=lambda value: str(value) if isinstance(value, int) else value[0].name,
)  # fmt: skip
def test_a_process_that_fails_is_named_in_one_line_and_the_others_end(
    rank, fault, two_processes, tmp_path, record_figure
):
    (signum, says), (process, ranks) = fault, two_processes
    os.kill(ranks[rank], signum)
    start = time.monotonic()
    errors = process.wait(timeout=30).stderr
    took = time.monotonic() - start
    record_figure(f"process {rank} gets {signum.name}: the other and the run end after {took:.1f} s")
    assert process.returncode == 2
    *before, last = errors.splitlines()
    assert last.startswith(f"process {rank + 1} of 2 {says}, and the others were terminated; resume with run="), errors
    assert before.count("Traceback (most recent call last):") == (signum == signal.SIGUSR1)
    assert bool(before) == (signum == signal.SIGUSR1), errors
    assert took < 5 + 20
    assert not folders.remaining_processes(tmp_path)
    assert checkpoint_of(run_folder(tmp_path))["epoch"] >= 0


def listening(pid: int) -> set[str]:
    """Returns the addresses on which the process listens, as /proc/net/tcp writes them."""
    inodes = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    tables = [Path(f"/proc/{pid}/net/{kind}").read_text().splitlines() for kind in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def test_processes_listen_to_this_machine_only_and_end_with_their_parent(two_processes, tmp_path):
    process, ranks = two_processes
    for pid in ranks:
        assert listening(pid) == {"0100007F"}  # 127.0.0.1
    process.kill()
    folders.wait_until_no_process_remains(tmp_path)

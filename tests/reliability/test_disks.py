"""Tests that a full or read-only disk costs one line and no file."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch

from quadrant_lstm.callbacks.checkpoints import read_checkpoint, write_checkpoint
from quadrant_lstm.errors import UserError
from tests.folders import TINY, checkpoint_of, run_folder, tiny_data
from tests.scripts import refused, script, succeeds


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_checkpoint_that_does_not_fit_leaves_the_previous_one(small_disk):
    file = small_disk / "last.ckpt"
    write_checkpoint({"number": 1}, file)
    with pytest.raises(UserError, match=f"{file}: cannot be written .{os.strerror(errno.ENOSPC)}."):
        write_checkpoint({"number": 2, "weights": torch.ones(2_400_000)}, file)
    assert read_checkpoint(file)["number"] == 1
    assert list(small_disk.iterdir()) == [file]


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as opened, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        while opened.write(bytes(4096)):
            pass


def test_a_run_stops_with_one_line_and_resumes_when_there_is_space(small_disk, tmp_path):
    options = (*tiny_data(tmp_path), *TINY, "trainer.max_epochs=1")
    succeeds("train.py", *options, cwd=small_disk)
    run = run_folder(small_disk)
    files = {file: file.read_bytes() for file in run.glob("checkpoints/*")}

    fill(small_disk / "full")
    for devices in ((), ("trainer.accelerator=cpu", "trainer.devices=2")):
        full = refused("train.py", f"run={run}", "trainer.max_epochs=2", *devices, cwd=small_disk)
        assert "(No space left on device)" in full
        assert str(run.relative_to(small_disk)) in full.partition("Fix it and re")[2]
    assert {file: file.read_bytes() for file in run.glob("checkpoints/*")} == files

    (small_disk / "full").unlink()
    succeeds("train.py", f"run={run}", "trainer.max_epochs=2", cwd=small_disk)
    assert checkpoint_of(run)["epoch"] + 1 == 2

    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for command in ((f"run={run}", "trainer.max_epochs=3"), options, ("-m", *options)):
        done = script("train.py", *command, cwd=small_disk)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and "(Read-only file system)" in done.stderr, done.stderr
        assert "epoch " not in done.stdout.replace("finished epoch", "")
    succeeds("evaluate.py", f"run={run}", cwd=small_disk)  # it writes nothing

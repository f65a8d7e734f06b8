"""Checkpoints are whole or absent; what was damaged since is refused by name."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from quadrant_lstm.callbacks.checkpoint_io import read_checkpoint, write_checkpoint
from quadrant_lstm.errors import UserError

KILLS, FLIPS, CUTS = 50, 200, 100


def checkpoint(number: int) -> dict[str, object]:
    return {"number": number, "weights": torch.full((20_000,), float(number))}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_checkpoint(checkpoint(1), tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_what_was_written_is_read(file):
    assert read_checkpoint(file)["number"] == 1
    assert torch.load(file, weights_only=True)["weights"].sum() == 20_000  # anybody's torch can


def write_on(file: Path) -> None:
    for number in range(2, 1_000_000):
        write_checkpoint(checkpoint(number), file)


def test_a_kill_while_it_is_written_leaves_the_one_before_or_after(file, record_figure, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/dev/shm")  # another file system, where there is one
    draw = random.Random(0)
    newest, unreadable = 1, 0
    for _ in range(KILLS):
        writer = multiprocessing.get_context("fork").Process(target=write_on, args=(file,))
        writer.start()
        time.sleep(draw.uniform(0.005, 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        try:
            found = read_checkpoint(file)
            assert (found["weights"] == found["number"]).all()
            newest = max(newest, found["number"])
        except UserError:
            unreadable += 1
    record_figure(f"{unreadable} of {KILLS} unreadable after a kill while they were written")
    assert unreadable == 0
    assert newest > 1, "none was written"


def test_a_flipped_byte_is_refused(file, record_figure):
    content, draw, refused = file.read_bytes(), random.Random(0), 0
    for _ in range(FLIPS):
        place = draw.randrange(len(content))
        flipped = content[place] ^ draw.randrange(1, 256)
        file.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        with pytest.raises(UserError, match="last.ckpt: cannot be read"):
            read_checkpoint(file)
        refused += 1
    record_figure(f"{refused} of {FLIPS} single flipped bytes refused")


def test_a_truncated_file_is_refused(file, record_figure):
    content, draw, refused = file.read_bytes(), random.Random(0), 0
    for _ in range(CUTS):
        file.write_bytes(content[: draw.randrange(len(content))])
        with pytest.raises(UserError, match="last.ckpt: cannot be read"):
            read_checkpoint(file)
        refused += 1
    record_figure(f"{refused} of {CUTS} truncations refused")


def test_one_without_a_checksum_is_refused(file):
    torch.save({"weights": torch.ones(1)}, file)
    with pytest.raises(UserError, match="last.ckpt: cannot be read"):
        read_checkpoint(file)

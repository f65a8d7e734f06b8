"""Tests that a checkpoint is written completely or not at all and that a damaged one is refused."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from quadrant_lstm.callbacks.checkpoints import read_checkpoint, write_checkpoint
from quadrant_lstm.errors import UserError
from tests.malformed import Touch

KILLS = 50


def checkpoint(number: int) -> dict[str, object]:
    return {"number": number, "weights": torch.full((20_000,), float(number))}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_checkpoint(checkpoint(1), tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def write_repeatedly(file: Path) -> None:
    for number in range(2, 1_000_000):
        write_checkpoint(checkpoint(number), file)


def test_a_kill_while_writing_leaves_the_previous_or_the_new_file(file, record_figure, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/dev/shm")  # usually another file system
    draw = random.Random(0)
    newest, unreadable = 1, 0
    for _ in range(KILLS):
        writer = multiprocessing.get_context("fork").Process(target=write_repeatedly, args=(file,))
        writer.start()
        time.sleep(draw.uniform(0.005, 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        try:
            read = read_checkpoint(file)
            assert (read["weights"] == read["number"]).all()
            newest = max(newest, read["number"])
        except UserError:
            unreadable += 1
    record_figure(f"{unreadable} of {KILLS} checkpoints unreadable after a kill while writing")
    assert unreadable == 0
    assert newest > 1, "no checkpoint was written"


def flipped(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ draw.randrange(1, 256)]) + content[place + 1 :]


def truncated(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


@pytest.mark.parametrize(("damage", "count"), [(flipped, 200), (truncated, 100)])
def test_a_damaged_file_is_refused(damage, count, file, record_figure):
    content, draw = file.read_bytes(), random.Random(0)
    for _ in range(count):
        file.write_bytes(damage(content, draw))
        with pytest.raises(UserError, match="last.ckpt: cannot be read"):
            read_checkpoint(file)
    record_figure(f"{count} of {count} {damage.__name__} files refused")


def test_a_pickle_with_a_valid_checksum_is_not_executed_and_a_file_without_one_is_refused(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    for write in (write_checkpoint, torch.save):
        write({"state_dict": Touch()}, file)
        with pytest.raises(UserError, match="last.ckpt: cannot be read"):
            read_checkpoint(file)
        assert not Path("executed").exists()

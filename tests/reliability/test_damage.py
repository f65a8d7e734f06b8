"""Tests that a damaged byte in a file of a run or of a sweep never ends in a traceback, and loses nothing else."""

import random
import shutil
from pathlib import Path

import pytest

from quadrant_lstm.files import read_yaml
from tests.folders import TINY, sweep_folder, tiny_data
from tests.scripts import Script, script, waiting_after

FLIPS = 20  # in each file


def files_of(folder: Path) -> list[Path]:
    """Returns the files that a resumed run or sweep may read; of a copy of conf/ the first of each folder."""
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    first = {path.parent: path for path in reversed(found)}
    kept = [path for path in found if "conf" not in path.parts or path in first.values()]
    return [path for path in kept if path.suffix != ".html" and "events" not in path.name and path.name != ".lock"]


def flip(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
    file.write_bytes(content)


def resume_damaged(folder: Path, word: str, record_figure) -> None:
    """Damages each file many times. The command ends well or with one line, and then nothing has changed."""
    draw, original, refused, count = random.Random(0), folder.with_name("original"), 0, 0
    shutil.copytree(folder, original)
    for file in files_of(original):
        for _ in range(FLIPS):
            shutil.rmtree(folder)
            shutil.copytree(original, folder)
            flip(folder / file, draw)
            before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            done = script("train.py", f"{word}={folder}", cwd=folder.parent)
            assert "Traceback" not in done.stdout + done.stderr, (file, done.stderr)
            assert done.returncode in (0, 2), (file, done.returncode)
            count += 1
            if done.returncode == 2:
                refused += 1
                assert done.stderr.count("\n") == 1, (file, done.stderr)
                kept = [path for path in before if path.suffix == ".ckpt" or path.name == "config.yaml"]
                changed = [path for path in kept if path.read_bytes() != before[path]]
                assert word == "sweep" or not changed, (file, changed)
            is_read = file.suffix == ".ckpt" and not (original / file.parts[0] / "results.json").exists()
            assert not is_read or done.returncode == 2, file  # a finished job is left alone
    record_figure(f"{count} flipped bytes in the files of a {word}: {refused} refused in one line, 0 tracebacks")


@pytest.mark.reliability
@pytest.mark.timeout(3600)
def test_a_flipped_byte_in_a_file_of_a_run(tmp_path, record_figure):
    words = (*tiny_data(tmp_path), *TINY, "hydra.run.dir=run")
    process = Script("train.py", *words, cwd=tmp_path, before=waiting_after(2))
    assert any("epoch 2/3" in line for line in process.lines())
    process.kill()
    resume_damaged(tmp_path / "run", "run", record_figure)


@pytest.mark.reliability
@pytest.mark.timeout(3600)
def test_a_flipped_byte_in_a_file_of_a_sweep(tmp_path, record_figure):
    words = (*tiny_data(tmp_path), *TINY, "seed=1,2")
    process = Script("train.py", "-m", *words, cwd=tmp_path, before=waiting_after(2, "1"))
    process.wait_for("outputs/sweeps/*/*/1/checkpoints/last.ckpt")
    process.kill()
    sweep = tmp_path / "sweep"
    shutil.move(sweep_folder(tmp_path), sweep)
    assert read_yaml(sweep / "multirun.yaml").hydra.overrides.task
    resume_damaged(sweep, "sweep", record_figure)

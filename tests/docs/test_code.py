"""The Python code of the pages runs, and prints what the pages show."""

import re
import shutil
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from quadrant_lstm import describe
from quadrant_lstm.run_folder import read_results
from tests.networks import question_network
from tests.scripts import FORKSERVER, ROOT, script

PAGE = ROOT / "docs/join.md"
TEXT = PAGE.read_text()
BLOCKS = {
    TEXT[: block.start(1)].count("\n"): block[1] for block in re.finditer(r"```python\n(.*?)```", TEXT, re.DOTALL)
}  # by the number of lines above
WRONG = re.compile(r"^# wrong: (.+)\n# (\w+): (.+)$", re.MULTILINE)  # code, and the error that it raises


@pytest.fixture(scope="module")
def process():
    """One process for all blocks. It does not check shapes, because torch.export cannot trace these checks."""
    with ProcessPoolExecutor(1, FORKSERVER) as pool:
        yield pool


def run_block(line: int, code: str) -> list[tuple[str, str]]:
    """Runs a block, which must be complete, and returns what its lines that are marked wrong raise."""
    names: dict = {}
    exec(compile("\n" * line + code, PAGE, "exec"), names)
    raised = []
    for wrong, _, _ in WRONG.findall(code):
        try:
            exec(wrong, names)
        except Exception as error:
            raised.append((type(error).__name__, str(error)))
    return raised


@pytest.mark.parametrize("line", BLOCKS, ids=lambda line: f"line_{line + 1}")
def test_a_block_of_code_runs(line, process):
    code = BLOCKS[line]
    wrong = WRONG.findall(code)
    assert len(wrong) == code.count("# wrong: ")
    for (name, text), (_, expected, message) in zip(process.submit(run_block, line, code).result(), wrong, strict=True):
        assert (name, text[: len(message)]) == (expected, message)


NOT_NEEDED = {"lightning", "torchmetrics", "hydra", "omegaconf", "pydantic", "tensorboard", "matplotlib", "jinja2"}


def imported_by_the_page() -> set[str]:
    """Imports what the page imports from this package, and returns the names of all packages that are imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] in NOT_NEEDED | {"quadrant_lstm"}]:
        del sys.modules[name]
    for line in set(re.findall(r"^from quadrant_lstm.* import .+$", TEXT, re.MULTILINE)):
        exec(line)
    return {name.partition(".")[0] for name in sys.modules}


def test_the_imports_of_the_page_need_neither_lightning_nor_hydra():
    with ProcessPoolExecutor(1, FORKSERVER) as pool:
        imported = pool.submit(imported_by_the_page).result()
    assert "torch" in imported
    assert not imported & NOT_NEEDED


def test_the_pages_show_what_describe_prints(capsys):
    (code,) = (code for code in BLOCKS.values() if "print(" in code)
    exec(code, {})
    assert f"\n\n{textwrap.indent(capsys.readouterr().out, '    ')}\n" in TEXT
    table = str(describe(question_network(), torch.empty(64, 4, 1, 56, 14)))
    assert textwrap.indent(table, "    ") in (ROOT / "README.md").read_text()


def test_the_code_of_the_readme_runs(smoke_run, tmp_path, monkeypatch):
    shutil.copytree(smoke_run, tmp_path / "outputs/run")
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for block, shape in ((first, (8, 10)), (second, (3, 10))):
        names: dict = {}
        exec(block, names)
        assert names["logits"].shape == shape


EXPORTED = {"onnx": "[[1, 2, 3, 4], ", "torch": "ACCURACY\n", "safetensors": "data:\n"}  # and what a reader prints
# the last block reads a video: tests/run/test_video_runs.py
*READERS, _ = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(("format", "block"), list(zip(EXPORTED, READERS, strict=True)), ids=list(EXPORTED))
def test_an_exported_file_is_read(format, block, smoke_run, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(smoke_run, tmp_path / "run")
    done = script("export.py", "run=run", f"format={format}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(run)
    names: dict = {}
    exec(block, names)
    assert EXPORTED[format].replace("ACCURACY", str(read_results(run)["test/accuracy"])) in capsys.readouterr().out
    if "probabilities" in names:
        assert names["probabilities"].shape == (3, 10)
        assert float(names["probabilities"].sum()) == pytest.approx(3, abs=1e-4)
    else:
        assert tuple(names["weights"]["recurrent.weight_ih_l0"].shape) == (20, 4160)


def test_the_clips_to_try_move_as_their_names_say(tmp_path, monkeypatch):
    av = pytest.importorskip("av", reason="needs av")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/clips.md").read_text(), re.DOTALL)
    monkeypatch.setattr(sys, "argv", ["motions.py", str(tmp_path / "clips"), "1"])
    exec(code, {})
    for name, direction in {"left": -1j, "right": 1j, "up": -1, "down": 1}.items():
        with av.open(str(tmp_path / "clips" / name / "0.mp4")) as video:
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(float)
        weights = np.linalg.norm(frames - np.median(frames, axis=(0, 1, 2)), axis=3) > 60
        turns = [  # of the disc around the height and the width, which have no edges
            np.angle((weights * np.exp(2j * np.pi * np.indices(weights.shape)[axis] / weights.shape[axis])).sum((1, 2)))
            for axis in (1, 2)
        ]
        down, right = (np.unwrap(turn)[[0, -1]] @ [-1, 1] for turn in turns)
        assert np.angle((down + 1j * right) / direction) == pytest.approx(0, abs=0.2), name

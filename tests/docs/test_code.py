"""The Python code of the pages runs, and prints what the pages show."""

import re
import runpy
import shutil
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from quadrant_lstm import describe
from quadrant_lstm.run.export import export
from quadrant_lstm.run_folder import read_results
from tests.code_blocks import Errors, blocks_of, check_errors, errors_of
from tests.networks import question_network
from tests.scripts import FORKSERVER, ROOT

PAGE = ROOT / "docs/join.md"
TEXT = PAGE.read_text()
BLOCKS = blocks_of(PAGE)


@pytest.fixture(scope="module")
def process():
    """One process for all blocks. It does not check shapes, because torch.export cannot trace these checks."""
    with ProcessPoolExecutor(1, FORKSERVER) as pool:
        yield pool


def run_block(line: int, code: str) -> Errors:
    """Runs a block, which must be complete, and returns what its lines that are marked wrong raise."""
    names: dict = {}
    exec(compile("\n" * line + code, PAGE, "exec"), names)
    return errors_of(code, names)


@pytest.mark.parametrize("line", BLOCKS, ids=lambda line: f"line_{line + 1}")
def test_a_block_of_code_runs(line, process):
    check_errors(BLOCKS[line], process.submit(run_block, line, BLOCKS[line]).result())


# What people post, in their words; one message or question per line
SEARCHES = """
TimeDistributed in PyTorch
total size of new array must be unchanged
expected ndim=3, found ndim=2
expected ndim=4, found ndim=5
Is a Reshape layer the proper tool? Am I doing this the right way?
How can I pass the timestep dimension through the entire network?
Why are there so complicated solutions, if a simple Reshape does the trick?
input shape for LSTM
What is ConvLSTM?
difference between ConvLSTM and CNN LSTM?
How many inputs does LSTM have?
Expected input batch_size (60) to match target batch_size (10)
For batched 3-D input, hx and cx should also be 3-D but got (2-D, 2-D) tensors
For unbatched 2-D input, hx and cx should also be 2-D
Expected hidden[0] size (4, 10, 100), got (4, 4, 100)
input.size(-1) must be equal to input_size. Expected
Expected 4-dimensional input for 4-dimensional weight [64, 3, 7, 7], but got 5-dimensional input
'lengths' argument should be a 1D CPU int64 tensor, but got 1D cuda:0 Long tensor
shape '[-1, 1, 80, 80]' is invalid for input of size 25690112
input must have 3 dimensions, got 2
RNN module weights are not part of single contiguous chunk of memory
flatten_parameters
Expected more than 1 value per channel when training, got input size [1, 1024]
Expected more than 1 value per channel when training, got input size torch.Size([1, 1024])
Input and hidden tensors are not at the same device, found input tensor at cuda:0 and hidden tensor at cpu
Using a target size (torch.Size([64])) that is different to the input size (torch.Size([64, 1]))
'tuple' object has no attribute 'dim'
'tuple' object has no attribute 'size'
self.lstm(x.unsqueeze(0))
view instead of transpose
stack expects each tensor to be equal size
mat1 and mat2 shapes cannot be multiplied
size mismatch, m1:
expected ndim=3, found ndim=4. Full shape received
expected time_distributed_input to have 5 dimensions, but got array with shape (4, 28, 28, 1)
expected lstm_1_input to have 3 dimensions, but got array with shape (8, 1)
TimeDistributed Layer should be passed an input_shape with at least 3 dimensions
non-empty 3D or 4D (batch mode) tensor expected for input
running_mean should contain
tuple indices must be integers or slices, not tuple
Input type (unsigned char) and bias type (float) should be the same
RNN input dtype (torch.float64) does not match weight dtype (torch.float32)
expected target dtype to be Long or Byte, but got Float
unflatten: Provided sizes [4, 2] don't multiply up to the size of dim 0 (6)
Length of all samples has to be greater than 0
index 1 is out of bounds for dimension 0 with size 1
"""


def as_shown(source: str) -> str:
    """Returns the text of Markdown as a browser shows and searches it."""
    return " ".join(source.replace("`", "").replace("*", "").split()).casefold()


def test_messages_are_found_by_their_words():
    text = as_shown(TEXT)
    assert [search for search in SEARCHES.strip().splitlines() if as_shown(search) not in text] == []


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
    export(run, format)
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
    monkeypatch.setattr(sys, "argv", ["motions.py", str(tmp_path / "clips"), "1"])
    runpy.run_path(str(ROOT / "examples/motions.py"))
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

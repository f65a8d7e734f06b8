"""The code of docs/keras.md, and its tables: with the same weights, a layer of Keras and its call return the same."""

import re

import keras
import numpy as np
import pytest
import torch
from torch import Tensor

from quadrant_lstm.run.keras_model import KerasSizes, sizes_of_keras
from tests.code_blocks import blocks_of, check_errors, errors_of
from tests.scripts import ROOT

PAGE = (ROOT / "docs/keras.md").read_text()
BLOCKS = blocks_of(ROOT / "docs/keras.md")
NAMES: dict = {}
for block in BLOCKS.values():
    exec(block, NAMES)


@torch.no_grad()
def test_the_networks_of_the_page_are_that_of_the_question():
    assert sizes_of_keras(NAMES["model"]) == (KerasSizes([32, 32]), [1, 56, 14], 10)
    frames = torch.rand(2, 4, 1, 56, 14)
    assert NAMES["model"](frames.movedim(2, -1)).shape == NAMES["QuestionNetwork"]()(frames).shape == (2, 10)


def test_keras_says_what_the_page_shows():
    (code,) = (code for code in BLOCKS.values() if "# wrong: " in code)
    check_errors(code, errors_of(code, NAMES))


def rows() -> list[dict[str, str]]:
    """Returns the cells of every row of the tables of layers by the name of their column."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        header, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        found += [dict(zip(header, cells, strict=True)) for cells in lines if "call" in header]
    return found


def code(cell: str) -> str:
    return "".join(re.findall(r"`([^`]*)`", cell))


torch.manual_seed(0)
PADDED = torch.randn(2, 5, 16)
PADDED[1, 3:] = 0
INPUTS = {"clip": torch.randn(2, 5, 3, 9, 7), "sequence": torch.randn(2, 5, 16), "padded": PADDED,
          "rows": torch.randn(2, 9, 7, 1), "vector": torch.randn(2, 16)}  # fmt: skip


def tensors_of_keras(outputs) -> list[Tensor]:
    """Returns tensors on the CPU, with the channels of maps first."""
    outputs = [output.cpu() for output in (outputs if isinstance(outputs, list | tuple) else [outputs])]
    return [output.movedim(-1, -3) if output.ndim > 3 else output for output in outputs]


def flat(outputs) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs[0] if outputs.ndim == 3 and len(outputs) == 1 else outputs]  # a state has an axis for layers
    return [tensor for output in outputs for tensor in flat(output)]


@torch.no_grad()
@pytest.mark.parametrize("row", [row for row in rows() if row["Keras 3"]], ids=lambda row: code(row["Keras 3"]))
def test_a_layer_of_keras_and_its_counterpart_return_the_same(row):
    theirs = eval(code(row["Keras 3"]), vars(keras.layers) | {"Sequential": keras.Sequential})
    (name,) = {name for name in INPUTS if re.search(rf"\b{name}\b", code(row["call"]))}
    given = INPUTS[name].movedim(2, -1) if name == "clip" else INPUTS[name]
    theirs(given)
    random = np.random.default_rng(0)
    theirs.set_weights([random.normal(scale=0.3, size=weight.shape) for weight in theirs.get_weights()])
    names = NAMES | INPUTS
    if row["layer"]:
        names["layer"] = eval(code(row["layer"]), NAMES)
        if list(names["layer"].parameters()):
            NAMES["copy_weights"](theirs, names["layer"])
    if "stateful" in row["Keras 3"]:
        theirs.reset_states()
        theirs(given)
    expected = tensors_of_keras(theirs(given))
    found = flat(eval(code(row["call"]), names))
    assert len(found) == len(expected)
    for ours, other in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=0)
        assert ours.std() > 0.01


@torch.no_grad()
def test_a_highway_adds_what_the_gate_lets_through():
    (row,) = (row for row in rows() if not row["Keras 3"])
    layer = eval(code(row["layer"]), NAMES)
    x = INPUTS["sequence"]
    new, gate = layer(x).chunk(2, dim=2)
    found = eval(code(row["call"]), NAMES | INPUTS | {"layer": layer})
    torch.testing.assert_close(found, gate.sigmoid() * new + (1 - gate.sigmoid()) * x)

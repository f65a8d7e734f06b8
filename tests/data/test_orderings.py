import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from omegaconf import OmegaConf

from quadrant_lstm import ORDERINGS, sequences
from tests.networks import orderings_on
from tests.scripts import ROOT

NUMBERED = torch.tensor([[1, 2], [3, 4]])[None, None]  # quadrants of one pixel, whose value is their number


def test_frames_are_those_of_the_question():
    # rows: steps; columns: orderings 1234, 4321, 1324, 4231
    assert sequences(NUMBERED)[0, :, 0, :, 0].tolist() == [[1, 4, 1, 4], [2, 3, 3, 2], [3, 2, 2, 3], [4, 1, 4, 1]]


def test_a_mnist_batch_has_the_shape_of_the_question():
    assert sequences(torch.zeros(64, 1, 28, 28)).shape == (64, 4, 1, 56, 14)


def test_conf_and_the_public_constant_hold_the_same_orderings():
    conf = OmegaConf.load(ROOT / "conf/data/mnist.yaml")
    assert OmegaConf.to_container(conf.orderings) == [list(ordering) for ordering in ORDERINGS]


def slow_sequences(images, orderings, grid):
    """Splits and stacks with loops, after the table of the question."""
    samples = []
    for image in images:
        rows = [row.chunk(grid[1], dim=2) for row in image.chunk(grid[0], dim=1)]
        pieces = [piece for row in rows for piece in row]
        num_steps = len(pieces)
        steps = [torch.cat([pieces[ordering[step] - 1] for ordering in orderings], dim=1) for step in range(num_steps)]
        samples.append(torch.stack(steps))
    return torch.stack(samples)


@settings(deadline=None)
@given(
    data=st.data(),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    batch=st.integers(1, 3),
    channels=st.integers(1, 3),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
)
def test_any_orderings_of_any_grid_equal_a_loop(data, grid, batch, channels, height, width):
    orderings = data.draw(orderings_on(grid))
    images = torch.randint(0, 256, (batch, channels, grid[0] * height, grid[1] * width), dtype=torch.uint8)
    assert torch.equal(sequences(images, orderings, grid), slow_sequences(images, orderings, grid))


def test_orderings_may_be_named():
    named = sequences(NUMBERED, ["rows", "reversed-rows", "columns", [4, 2, 3, 1]])
    assert torch.equal(named, sequences(NUMBERED))


@pytest.mark.parametrize("ordering", [[1, 2, 3, 3], [1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4, 1]])
def test_an_ordering_that_is_no_permutation_is_refused(ordering):
    with pytest.raises(ValueError, match="is not a permutation of 1234; write one, or"):
        sequences(NUMBERED, [[1, 2, 3, 4], ordering])

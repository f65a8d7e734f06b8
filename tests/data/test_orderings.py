import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from omegaconf import OmegaConf

from quadrant_lstm import ORDERINGS, sequences
from tests.networks import ALL_ORDERINGS
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


def slow_sequences(images, orderings):
    """Splits and stacks with loops, after the table of the question."""
    samples = []
    for image in images:
        height, width = image.shape[1] // 2, image.shape[2] // 2
        upper, lower = image[:, :height], image[:, height:]
        quadrant = {1: upper[..., :width], 2: upper[..., width:], 3: lower[..., :width], 4: lower[..., width:]}
        steps = [torch.cat([quadrant[ordering[step]] for ordering in orderings], dim=1) for step in range(4)]
        samples.append(torch.stack(steps))
    return torch.stack(samples)


@settings(deadline=None)
@given(
    orderings=st.lists(st.sampled_from(ALL_ORDERINGS), min_size=1, max_size=6),
    batch=st.integers(1, 3),
    channels=st.integers(1, 3),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
)
def test_any_orderings_of_any_images_equal_a_loop(orderings, batch, channels, height, width):
    images = torch.randint(0, 256, (batch, channels, 2 * height, 2 * width), dtype=torch.uint8)
    assert torch.equal(sequences(images, orderings), slow_sequences(images, orderings))


@pytest.mark.parametrize("ordering", [[1, 2, 3, 3], [1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4, 1]])
def test_an_ordering_that_is_no_permutation_is_refused(ordering):
    with pytest.raises(ValueError, match=r"is not a permutation of 1234; write e\.g\. \[1, 2, 3, 4\]"):
        sequences(NUMBERED, [[1, 2, 3, 4], ordering])

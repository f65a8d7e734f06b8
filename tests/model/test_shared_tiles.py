"""Compares SharedTiles with TimeDistributed, which encodes every frame in full."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from quadrant_lstm import ORDERINGS, TimeDistributed, sequences
from quadrant_lstm.model.encoder import ConvEncoder, PaddedEncoder
from quadrant_lstm.model.shared_tiles import CannotShare, SharedTiles, plan_tiles
from tests.networks import orderings_on, question_network


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    sizes=st.tuples(st.integers(1, 3), st.integers(3, 9), st.integers(9, 10)),
    num_convs=st.integers(1, 3),
    kernel_size=st.integers(1, 3),
    pool_size=st.integers(1, 3),
)
def test_features_and_all_gradients_equal_those_of_full_frames(data, grid, sizes, num_convs, kernel_size, pool_size):
    torch.manual_seed(0)
    channels, piece_height, piece_width = sizes
    orderings = data.draw(orderings_on(grid, min_size=2))
    full = TimeDistributed(ConvEncoder(channels, [3] * num_convs, kernel_size, pool_size))
    try:
        shared = SharedTiles(full.module, orderings, piece_height)
    except CannotShare:
        assert piece_height % pool_size or piece_height < pool_size + num_convs * (kernel_size - 1)
        return
    size = (grid[0] * piece_height, grid[1] * piece_width)
    images = torch.rand(2, channels, *size, dtype=torch.float64, requires_grad=True)
    full.double()
    outputs, gradients = [], []
    for module in (full, shared):
        output = module(sequences(images, orderings, grid))
        outputs.append(output)
        weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
        gradients.append(torch.autograd.grad((output * weights).sum(), [images, *full.parameters()]))
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(*gradients)


def test_the_network_is_the_same_with_and_without_shared_tiles():
    torch.manual_seed(0)
    shared, full = question_network(shared_tiles=True, dropout=0.0), question_network(dropout=0.0)
    assert isinstance(shared.encoder, SharedTiles)
    assert list(shared.state_dict()) == list(full.state_dict())
    full.load_state_dict(shared.state_dict())
    frames = sequences(torch.rand(5, 1, 28, 28))
    torch.testing.assert_close(shared(frames), full(frames))
    frames[1, 2, 0, 55, 13] += 0.1  # does not follow the orderings
    torch.testing.assert_close(shared.in_full()(frames), full(frames))


@pytest.mark.parametrize(
    ("encoder", "orderings", "reason"),
    [
        (PaddedEncoder(1, [[2]]), ORDERINGS, "PaddedEncoder is not a ConvEncoder"),
        (ConvEncoder(1, [2], 15, 1), ORDERINGS, "a feature sees 15 rows, more than the 14 of a piece"),
        (ConvEncoder(1, [2], 3, 2), ORDERINGS[:1], "with one ordering each piece is shown once"),
    ],
)
def test_tiles_that_cannot_be_shared_are_refused_with_the_reason(encoder, orderings, reason):
    with pytest.raises(CannotShare, match=reason):
        SharedTiles(encoder, orderings, 14)


def test_a_network_that_cannot_share_tiles_encodes_in_full_and_logs_the_reason(caplog):
    with caplog.at_level("INFO"):
        network = question_network(shared_tiles=True, pool_size=3)
    assert type(network.encoder) is TimeDistributed
    assert "every frame is encoded in full: the pooling's 3 rows do not divide the 14 of a piece" in caplog.text


def test_the_question_has_three_tiles_of_22_rows_and_one_of_14():
    tiles, rows = plan_tiles(ORDERINGS, 14, ConvEncoder(1, [32, 32], 3, 2))
    # step 1 stacks 1, 4, 1, 4; step 2: 2, 3, 3, 2; step 3: 3, 2, 2, 3; step 4: 4, 1, 4, 1
    image = {quadrant: list(range(14 * place, 14 * place + 14)) for place, quadrant in {0: 1, 1: 4, 4: 2, 5: 3}.items()}
    expected = [
        image[4][10:] + image[1] + image[4][:4],  # seam 41, quadrant 1, seam 14
        image[3][10:] + image[2] + image[2][:4],
        image[2][10:] + image[3] + image[3][:4],
        image[4],  # its seams, 14 and 41, are in the tile of quadrant 1
    ]
    assert tiles == expected
    seam_41, quadrant_1, seam_14, quadrant_4 = [0, 1], [2, 3, 4, 5, 6], [7, 8], [27, 28, 29, 30, 31]
    assert rows[0] == quadrant_1 + seam_14 + quadrant_4 + seam_41 + quadrant_1 + seam_14 + quadrant_4
    assert {row for step in rows for row in step} == set(range(32))
    assert sum(map(len, rows)) == 104

import pytest
import torch

from quadrant_lstm import ORDERINGS, sequences
from quadrant_lstm.data.orderings import QUADRANTS, orderings_of, split_pieces
from quadrant_lstm.model.deep import DeepCNNLSTM, JoinedPieces, PiecePool, encoder_of_images
from quadrant_lstm.model.encoder import PaddedEncoder
from quadrant_lstm.model.rnn import LSTM


@pytest.fixture
def images():
    return torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("join_pieces", [True, False])
@pytest.mark.parametrize(
    ("grid", "orderings"),
    [
        (QUADRANTS, ORDERINGS),
        (QUADRANTS, [(2, 1, 4, 3), (2, 3, 1, 4), (4, 3, 2, 1)]),
        ((3, 2), ["columns"]),
        ((4, 4), ["spiral", "random:1", "reversed-hilbert"]),
    ],
)
def test_the_features_of_a_step_are_those_of_the_pieces_in_its_frame(grid, orderings, join_pieces, images):
    torch.manual_seed(0)
    orderings, joined_grid = orderings_of(orderings, grid), grid if join_pieces else (1, 1)
    encoder = encoder_of_images((1, 12 // grid[0], 12 // grid[1]), joined_grid, [[4], [5, 6]]).eval()
    frames, pieces = sequences(images, orderings, grid), split_pieces(images, grid).unbind(1)
    maps = split_pieces(encoder(images), grid).unbind(1) if join_pieces else [encoder(piece) for piece in pieces]
    features = [piece.permute(0, 2, 3, 1).flatten(1) for piece in maps]
    steps = [torch.cat([features[piece - 1] for piece in step], dim=1) for step in zip(*orderings, strict=True)]
    expected = torch.stack(steps, dim=1)
    joined, shapes = JoinedPieces(encoder, orderings, joined_grid), []
    encoder.register_forward_hook(lambda module, inputs, outputs: shapes.append(inputs[0].shape))
    torch.testing.assert_close(joined(frames), expected)
    assert shapes == [images.shape] or not join_pieces  # it is encoded once
    torch.testing.assert_close(JoinedPieces(encoder, orderings, joined_grid, once=False)(frames), expected)
    gradient = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad(expected, encoder.conv1_1.weight, gradient)
    (actual_gradient,) = torch.autograd.grad(joined(frames), encoder.conv1_1.weight, gradient)
    torch.testing.assert_close(actual_gradient, expected_gradient, rtol=1e-4, atol=1e-4)


def test_in_full_the_orderings_may_show_different_images(images):
    joined = JoinedPieces(PaddedEncoder(1, [[4]]).eval(), ORDERINGS, QUADRANTS, once=False)
    frames = sequences(images)
    occluded = frames.clone()
    occluded[:, :, :, 12:18] = 0  # the rows of the third ordering
    inputs = (frames, occluded, torch.zeros_like(frames))
    expected, actual, blank = (joined(one).unflatten(2, (4, -1)).unbind(2) for one in inputs)
    torch.testing.assert_close(actual, (expected[0], expected[1], blank[2], expected[3]))


def test_a_pool_keeps_the_last_row_and_column_of_every_quadrant():
    maps = torch.arange(36).view(1, 1, 6, 6).float().repeat(1, 2, 1, 1)  # two equal channels, quadrants of 3 x 3
    pooled = PiecePool(QUADRANTS)(maps)[0, 1]
    assert pooled.tolist() == [[7, 8, 10, 11], [13, 14, 16, 17], [25, 26, 28, 29], [31, 32, 34, 35]]


def network(join_pieces=True) -> DeepCNNLSTM:
    return DeepCNNLSTM((1, 24, 6), 3, ORDERINGS, QUADRANTS, [[4]], LSTM, 0.0, 5, join_pieces).eval()


def test_in_full_the_network_is_the_same_and_stays_on_its_device(images):
    deep, frames = network(), sequences(images)
    torch.testing.assert_close(deep.in_full()(frames), deep(frames))
    network(join_pieces=False).load_state_dict(deep.state_dict())  # has the same parameters
    assert {buffer.device.type for buffer in deep.to("meta").in_full().buffers()} == {"meta"}

import copy

import torch

from quadrant_lstm.model.encoder import RowsEncoder
from quadrant_lstm.model.network import Reshaped


def test_rows_are_read_pixel_by_pixel_and_then_from_top_to_bottom():
    torch.manual_seed(0)
    encoder, frames = RowsEncoder(2, 3), torch.randn(4, 2, 5, 6)
    rows = []
    for row in range(5):
        pixels = frames[:, :, row].transpose(1, 2)  # [N, W, C]
        rows.append(super(type(encoder.rows), encoder.pixels.module).forward(pixels)[0][:, -1])
    outputs, _ = super(type(encoder.rows), encoder.rows).forward(torch.stack(rows, dim=1))
    torch.testing.assert_close(encoder(frames), outputs[:, -1])


def test_after_a_reshape_the_steps_are_channels_whose_order_is_lost():
    torch.manual_seed(0)
    network = Reshaped((1, 56, 14), 10, 4, [32, 32], 3, 2, 0.25, 5, 50).eval()
    frames, order = torch.randn(2, 4, 1, 56, 14), [2, 0, 3, 1]
    other = copy.deepcopy(network)
    other.encoder.conv1.weight.data = network.encoder.conv1.weight[:, order]
    torch.testing.assert_close(other(frames[:, order]), network(frames))
    assert network.recurrent.input_size == 32 * 5  # a row of the maps

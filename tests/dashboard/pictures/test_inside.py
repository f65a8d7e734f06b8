import numpy as np
import pytest
import torch
from torch import nn

from quadrant_lstm import sequences
from quadrant_lstm.dashboard.pictures.network import draw_features, draw_gates, feature_maps, mosaic
from tests.networks import small_network


def test_feature_maps_are_those_of_the_frame_with_the_largest_sum():
    torch.manual_seed(0)
    network, image = small_network(), torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    image[:, :, :8, 8:] = 200  # quadrant 2, which frame 2 contains twice
    frames = sequences(image)
    maps = feature_maps(network, frames)
    torch.testing.assert_close(maps["input"] * 255, frames[0, 1].float())
    torch.testing.assert_close(maps["conv1"], network.encoder.module.conv1(frames[0, 1:2] / 255).relu()[0])
    assert maps["conv2"].shape == (3, 28, 4)
    pictures = {name: figure.axes for name, figure in draw_features(network, frames).items()}
    titles = {name: maps.get_title() for name, (_, maps) in pictures.items()}
    assert titles == {"filters": "the 2 filters of the first convolution", "conv1": "conv1: 2 feature maps",
                      "conv2": "conv2: 3 feature maps"}  # fmt: skip
    for frame, _ in pictures.values():
        np.testing.assert_allclose(255 * frame.images[0].get_array(), frames[0, 1, 0], rtol=1e-6)


def test_a_mosaic_is_about_twice_as_wide_as_high():
    page = mosaic(np.arange(1.0, 6)[:, None, None] * np.ones((5, 2, 3)))
    assert page.shape == (5, 11)  # two rows of three, with a pixel between
    assert (page[:2, :3] == 1).all()
    assert np.isnan(page[3:, 8:]).all()  # there is no sixth
    assert np.isnan(page[2]).all()
    assert mosaic(np.ones((1, 2, 9))).shape == (2, 9)
    assert mosaic(np.ones((3, 50, 2))).shape == (50, 8)  # too narrow even in one row


@pytest.mark.parametrize(("shape", "per_row"), [((3, 3), 8), ((12, 5), 16), ((54, 12), 16), ((24, 32), 8)])
def test_the_rows_of_32_maps_are_full(shape, per_row):
    page = mosaic(np.ones((32, *shape)))
    assert page.shape == (32 // per_row * (shape[0] + 1) - 1, per_row * (shape[1] + 1) - 1)
    assert not np.isnan(page[-1, -1])


def test_gates_are_those_of_pytorch():
    torch.manual_seed(0)
    network = small_network()
    frames = sequences(torch.randint(0, 256, (1, 1, 16, 16), dtype=torch.uint8))
    shown = {}
    for axes in draw_gates(network, frames, "some").axes:
        shown[axes.get_title().partition(",")[0]] = torch.from_numpy(np.asarray(axes.images[0].get_array()))
    cell = nn.LSTMCell(network.recurrent.input_size, 5)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in network.recurrent.state_dict().items()})
    state, maps = None, network.encoder(frames / 255)[0].flatten(1)
    for step in range(4):
        state = cell(maps[step : step + 1], state)
        torch.testing.assert_close(shown["output"][step], state[0][0].detach())
        torch.testing.assert_close(shown["cell state"][step], state[1][0].detach())
    torch.testing.assert_close(shown["cell state"][0], shown["input gate"][0] * shown["cell candidate"][0])
    torch.testing.assert_close(shown["output"], shown["output gate"] * shown["cell state"].tanh())

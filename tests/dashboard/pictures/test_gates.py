import numpy as np
import torch
from torch import nn

from quadrant_lstm import sequences
from quadrant_lstm.dashboard.pictures.gates import draw_gates
from tests.networks import small_network


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

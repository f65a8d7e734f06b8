import pytest
import torch
from torch import nn

from quadrant_lstm import TimeDistributed
from quadrant_lstm.model.shapes import as_text, stages
from tests.networks import question_network


@pytest.mark.parametrize("shared_tiles", [True, False])
def test_the_stages_of_the_question(shared_tiles):
    network = question_network(shared_tiles=shared_tiles)
    rows = {row.name: (row.shape, row.num_parameters) for row in stages(network, (1, 56, 14))}
    assert rows == {
        "frames": (("N", 4, 1, 56, 14), 0),
        "encoder.conv1": (("N", 4, 32, 54, 12), 320),
        "encoder.relu1": (("N", 4, 32, 54, 12), 0),
        "encoder.conv2": (("N", 4, 32, 52, 10), 9248),
        "encoder.relu2": (("N", 4, 32, 26, 5), 0),
        "encoder.pool": (("N", 4, 32, 26, 5), 0),
        "flatten": (("N", 4, 4160), 0),
        "dropout": (("N", 4, 4160), 0),
        "recurrent": (("N", 4, 5), 83340),
        "last_step": (("N", 5), 0),
        "dense": (("N", 50), 300),
        "head": (("N", 10), 510),
    }


def test_the_text_shows_shapes_and_the_total():
    text = as_text(stages(question_network(), (1, 56, 14)))
    assert "encoder.pool   MaxPool2d    [N, 4, 32, 26, 5]" in text
    assert text.splitlines()[-1].split() == ["total", "93,718"]


def test_nested_time_axes_all_stay_visible():
    network = TimeDistributed(TimeDistributed(nn.Linear(6, 2)))  # over steps, then over rows
    (frames, linear) = stages(network, (3, 5, 6))
    assert frames.shape == ("N", 4, 3, 5, 6)
    assert linear.shape == ("N", 4, 3, 5, 2)


def test_parameters_outside_layers_are_counted():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.flatten = nn.Flatten()

        def forward(self, frames):
            return self.flatten(frames) * self.scale.sum()

    assert sum(row.num_parameters for row in stages(Scaled(), (1, 2, 2))) == 3


def test_the_network_itself_is_not_changed():
    network = question_network()
    stages(network, (1, 56, 14))
    assert network.head.weight.device.type == "cpu"
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())

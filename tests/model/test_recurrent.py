import pytest
import torch
from torch import nn

from quadrant_lstm.model.recurrent import LAYERS, FlattenMaps, MapsGRU, MapsLSTM, equal_units


@pytest.mark.parametrize(("ours", "library"), [(MapsLSTM, nn.LSTM), (MapsGRU, nn.GRU)])
def test_layers_over_maps_equal_pytorchs_over_flattened_maps(ours, library):
    torch.manual_seed(0)
    ours, library = ours(3, 4 * 2, 5), library(3 * 4 * 2, 5, batch_first=True)
    library.load_state_dict(ours.state_dict())
    maps = torch.randn(6, 4, 3, 4, 2)
    actual, (expected, _) = ours(FlattenMaps()(maps)), library(maps.flatten(2))
    torch.testing.assert_close(actual, expected)
    weights = torch.randn_like(actual)
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, library.get_parameter(name).grad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_have_the_type_of_the_weights(kind, dtype):
    assert LAYERS[kind](3, 8, 5).to(dtype)(torch.randn(2, 4, 24, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("lstm_units", [6, 48, 256])
def test_all_kinds_have_about_as_many_parameters(kind, lstm_units):
    def count(kind, units):
        return sum(parameter.numel() for parameter in LAYERS[kind](32, 130, units).parameters())

    units = equal_units(kind, 32 * 130, lstm_units)
    target = count("lstm", lstm_units)
    difference = abs(count(kind, units) - target)
    assert difference < 0.01 * target
    assert all(difference <= abs(count(kind, other) - target) for other in (units - 1, units + 1))


def test_layers_without_memory_compute_what_their_names_say():
    torch.manual_seed(0)
    steps = torch.randn(2, 4, 6)
    last, mean, concat = (LAYERS[kind](6, 1, 3) for kind in ("last", "mean", "concat"))
    mean.load_state_dict(last.state_dict())
    outputs = [(steps[:, step] @ last.weight.T + last.bias).tanh() for step in range(4)]
    torch.testing.assert_close(last(steps), torch.stack(outputs, 1))
    torch.testing.assert_close(mean(steps)[:, 3], (outputs[0] + outputs[1] + outputs[2] + outputs[3]) / 4)
    torch.testing.assert_close(mean(steps)[:, 1], (outputs[0] + outputs[1]) / 2)
    torch.testing.assert_close(concat(steps)[:, 0], (steps.reshape(2, 24) @ concat.weight.T + concat.bias).tanh())


def test_channels_last_maps_are_not_copied():
    maps = torch.randn(2, 4, 5, 3, 6).permute(0, 1, 4, 2, 3)
    assert FlattenMaps()(maps).data_ptr() == maps.data_ptr()

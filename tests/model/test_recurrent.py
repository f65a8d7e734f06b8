import pytest
import torch
from torch import nn

from quadrant_lstm.model.recurrent import KINDS, FlattenMaps, MapsGRU, MapsLSTM, equal_units


@pytest.mark.parametrize(("ours", "library"), [(MapsLSTM, nn.LSTM), (MapsGRU, nn.GRU)])
def test_it_is_pytorchs_over_flattened_maps(ours, library):
    torch.manual_seed(0)
    ours, library = ours(3, 4 * 2, 5), library(3 * 4 * 2, 5, batch_first=True)
    library.load_state_dict(ours.state_dict())
    maps = torch.randn(6, 4, 3, 4, 2)
    found, (expected, _) = ours(FlattenMaps()(maps)), library(maps.flatten(2))
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, library.get_parameter(name).grad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_in_the_type_of_its_weights(kind, dtype):
    assert KINDS[kind](3, 8, 5).to(dtype)(torch.randn(2, 4, 24, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lstm_units", [6, 48, 256])
def test_all_kinds_have_as_many_parameters(kind, lstm_units):
    def count(kind, units):
        return sum(parameter.numel() for parameter in KINDS[kind](32, 130, units).parameters())

    units = equal_units(kind, 32 * 130, lstm_units)
    wanted = count("lstm", lstm_units)
    apart = abs(count(kind, units) - wanted)
    assert apart < 0.01 * wanted
    assert all(apart <= abs(count(kind, other) - wanted) for other in (units - 1, units + 1))


def test_without_memory_it_is_what_its_name_says():
    torch.manual_seed(0)
    steps = torch.randn(2, 4, 6)
    last, mean, concat = (KINDS[kind](6, 1, 3) for kind in ("last", "mean", "concat"))
    mean.load_state_dict(last.state_dict())
    alone = [(steps[:, step] @ last.weight.T + last.bias).tanh() for step in range(4)]
    torch.testing.assert_close(last(steps), torch.stack(alone, 1))
    torch.testing.assert_close(mean(steps)[:, 3], (alone[0] + alone[1] + alone[2] + alone[3]) / 4)
    torch.testing.assert_close(mean(steps)[:, 1], (alone[0] + alone[1]) / 2)
    torch.testing.assert_close(concat(steps)[:, 0], (steps.reshape(2, 24) @ concat.weight.T + concat.bias).tanh())


def test_channels_last_maps_are_not_copied():
    maps = torch.randn(2, 4, 5, 3, 6).permute(0, 1, 4, 2, 3)
    assert FlattenMaps()(maps).data_ptr() == maps.data_ptr()

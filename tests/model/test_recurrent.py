import pytest
import torch
from torch import nn

from quadrant_lstm.model.recurrent import FlattenMaps, MapsLSTM


def test_it_is_pytorchs_lstm_over_flattened_maps():
    torch.manual_seed(0)
    ours, library = MapsLSTM(3, 4 * 2, 5), nn.LSTM(3 * 4 * 2, 5, batch_first=True)
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
def test_it_computes_in_the_type_of_its_weights(dtype):
    assert MapsLSTM(3, 8, 5).to(dtype)(torch.randn(2, 4, 24, dtype=dtype)).dtype == dtype


def test_channels_last_maps_are_not_copied():
    maps = torch.randn(2, 4, 5, 3, 6).permute(0, 1, 4, 2, 3)
    assert FlattenMaps()(maps).data_ptr() == maps.data_ptr()

from functools import partial

import pytest
import torch
from torch import nn

from quadrant_lstm.errors import UserError
from quadrant_lstm.model.memoryless import Concatenated, PerStep, RunningMean
from quadrant_lstm.model.protocols import count_parameters
from quadrant_lstm.model.recurrent import FlattenMaps, LastStep, examine_outputs, make_recurrent
from quadrant_lstm.model.rnn import GRU, LSTM
from tests.networks import RECURRENT, join


@pytest.mark.parametrize(("ours", "library"), [(LSTM, nn.LSTM), (GRU, nn.GRU)])
@pytest.mark.parametrize("steps", [4, 12])
def test_layers_over_flattened_maps_equal_pytorchs(ours, library, steps):
    torch.manual_seed(0)
    ours, library = ours(24, 5, num_layers=2, num_channels=3), library(24, 5, num_layers=2, batch_first=True)
    library.load_state_dict(ours.state_dict())
    maps = torch.randn(6, steps, 3, 4, 2)
    (actual, state), (expected, expected_state) = ours(FlattenMaps()(maps)), library(maps.flatten(2))
    torch.testing.assert_close((actual, state), (expected, expected_state))
    weights = torch.randn_like(actual)
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, library.get_parameter(name).grad)


@pytest.mark.parametrize("kind", RECURRENT)
def test_outputs_have_the_type_of_the_weights(kind):
    shape = (8, 3, 1) if kind == "conv_lstm" else (24,)
    for dtype in (torch.float64, torch.bfloat16):
        layer = make_recurrent(RECURRENT[kind], shape, 5, 4).to(dtype)
        assert layer(torch.randn(2, 4, *shape, dtype=dtype))[0].dtype == dtype


@pytest.mark.parametrize("kind", RECURRENT)
def test_all_kinds_have_about_as_many_parameters(kind):
    with torch.device("meta"):
        for lstm_units in (6, 48, 256):
            wanted = count_parameters(LSTM(32 * 26 * 5, lstm_units))
            found = count_parameters(make_recurrent(RECURRENT[kind], (32, 26, 5), lstm_units, 4))
            coarse = kind in ("bilstm", "conv_lstm") and lstm_units == 6
            assert found == pytest.approx(wanted, rel=0.1 if coarse else 0.02)


@pytest.mark.parametrize("kind", RECURRENT)
def test_units_are_exactly_those_of_the_config_per_direction(kind):
    shape = (8, 3, 1) if kind == "conv_lstm" else (24,)
    layer = make_recurrent(partial(RECURRENT[kind], units=7), shape, 500, 4)
    assert examine_outputs(layer, shape, 4) == ((14, True) if kind == "bilstm" else (7, False))
    sized = [make_recurrent(make, shape, 5, 4) for make in (partial(RECURRENT[kind], units=None), RECURRENT[kind])]
    assert count_parameters(sized[0]) == count_parameters(sized[1])


def test_a_layer_of_given_units_is_built_with_no_others():
    built = []
    make_recurrent(partial(lambda inputs, units: built.append(units) or GRU(inputs, units), units=64), (24,), 5, 4)
    assert built == [64]


def test_a_layer_that_cannot_be_sized_or_does_not_read_what_it_is_given_is_refused():
    assert make_recurrent(RECURRENT["conv_lstm"], (8, 3, 1), 5, 4).in_channels == 8
    for make, line in (
        (RECURRENT["conv_lstm"], "model.recurrent: ConvLSTM reads maps, but the encoder returns a vector"),
        (lambda inputs, units: [], "model.recurrent: list is not an nn.Module; derive it from torch.nn.Module."),
        (nn.LSTM, "model.recurrent.batch_first: false, which reads samples as steps"),
        (lambda inputs, units: GRU(inputs, 3), "model.recurrent: a layer of two units has no more parameters than one"),
    ):
        with pytest.raises(UserError, match=line):
            make_recurrent(make, (24,), 5, 4)


class OwnLayer(nn.GRU):
    """Returns what `change` makes of the outputs and the state of a GRU."""

    def __init__(self, num_features, units, change):
        super().__init__(num_features, units, batch_first=True)
        self.change = change

    def forward(self, features):
        return self.change(*super().forward(features))


@pytest.mark.parametrize(
    ("change", "returned"),
    [
        (lambda outputs, state: outputs, "[2, 4, 3]"),
        (lambda outputs, state: (outputs.transpose(0, 1), state), "([4, 2, 3], [1, 2, 3])"),
        (lambda outputs, state: (outputs, state, None), "([2, 4, 3], [1, 2, 3], None)"),
    ],
)
def test_a_layer_must_return_outputs_and_a_state(change, returned):
    with pytest.raises(UserError) as error:
        examine_outputs(OwnLayer(6, 3, change), (6,), 4)
    assert str(error.value) == (
        f"model.recurrent: OwnLayer was given [2, 4, 6] and returned {returned}; it must return outputs [N, steps, "
        "units] and a state, which may be None."
    )


def test_a_layer_that_attends_to_later_steps_has_logits_after_the_last_step_only(monkeypatch):
    monkeypatch.setitem(RECURRENT, "own", partial(OwnLayer, change=lambda outputs, state: (outputs.flip(1), state)))
    network, frames = join("own"), torch.rand(2, 4, 1, 6, 6)
    torch.testing.assert_close(network.logits_per_step(frames), network(frames)[:, None])


def test_layers_without_memory_compute_what_their_names_say():
    torch.manual_seed(0)
    steps, padded = torch.randn(2, 4, 6), torch.randn(2, 4, 6)
    padded[1, 2:] = 0
    last, mean, concat = PerStep(6, 3), RunningMean(6, 3), Concatenated(6, 3, num_steps=4)
    mean.load_state_dict(last.state_dict())
    outputs = [(steps[:, step] @ last.weight.T + last.bias).tanh() for step in range(4)]
    torch.testing.assert_close(last(steps)[0], torch.stack(outputs, 1))
    torch.testing.assert_close(mean(steps)[0][:, 3], (outputs[0] + outputs[1] + outputs[2] + outputs[3]) / 4)
    torch.testing.assert_close(mean(steps)[0][:, 1], (outputs[0] + outputs[1]) / 2)
    expected = (padded.flatten(1) @ concat.weight.T + concat.bias).tanh()
    torch.testing.assert_close(concat(padded)[0], expected[:, None])
    padded[1, 2:] = 1
    torch.testing.assert_close(concat(padded, lengths=torch.tensor([4, 2]))[0], expected[:, None])


def test_the_last_step_is_the_last_real_one_and_backwards_the_first():
    outputs = torch.arange(2 * 3 * 4.0).view(2, 3, 4)  # two units per direction
    assert LastStep()(outputs).tolist() == [[8, 9, 10, 11], [20, 21, 22, 23]]
    assert LastStep()(outputs, torch.tensor([1, 2])).tolist() == [[0, 1, 2, 3], [16, 17, 18, 19]]
    assert LastStep(bidirectional=True)(outputs).tolist() == [[8, 9, 2, 3], [20, 21, 14, 15]]
    assert LastStep(bidirectional=True)(outputs, torch.tensor([1, 2])).tolist() == [[0, 1, 2, 3], [16, 17, 14, 15]]

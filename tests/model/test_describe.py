import re
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from quadrant_lstm import ConvLSTM, TimeDistributed, describe
from quadrant_lstm.model.encoder import RowsEncoder
from quadrant_lstm.model.rnn import LSTM
from tests.networks import question_network


def test_the_stages_of_the_question_are_the_same_with_shared_tiles_and_leave_the_network_as_it_is():
    frames, network = torch.empty(64, 4, 1, 56, 14), question_network(shared_tiles=True)
    assert describe(network, frames) == describe(question_network(), frames)  # which the README shows
    assert network.head.weight.device.type == "cpu"
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_few_inputs_are_computed_because_torch_counts_long_sequences_step_by_step_on_meta():
    devices = []
    network = nn.GRU(2, 3, batch_first=True)
    network.register_forward_hook(lambda module, inputs, outputs: devices.append(inputs[0].device.type))
    for frames in (torch.zeros(2, 300, 2), torch.zeros(600, 600, 2), torch.empty(200_000, 3, 2)):
        describe(network, frames)
    assert devices == ["cpu"] * 6 + ["meta"] * 3
    assert describe(network.to("meta"), torch.zeros(2, 4, 2, device="meta")).num_parameters == 63


class Padded(nn.Module):
    """Looks at values and makes tensors on the CPU, which the meta device cannot, and changes its inputs."""

    def __init__(self):
        super().__init__()
        self.lstm = LSTM(6, 4, bidirectional=True)
        self.between = nn.Conv1d(8, 3, 2)
        self.shift = nn.Parameter(torch.zeros(3))
        self.unused = nn.Linear(2, 2)

    def forward(self, frames, lengths):
        zeros = torch.zeros(2, len(frames), 4)
        outputs, _ = self.lstm(frames.add_(1), (zeros, zeros), lengths)
        maps = self.between(outputs.transpose(1, 2))
        return Result(maps), maps if lengths.sum() > 0 else None, None


@dataclass
class Result:
    logits: torch.Tensor


@pytest.mark.parametrize(
    ("network", "inputs", "options", "expected"),
    [
        (TimeDistributed(RowsEncoder(1, 3)), [torch.zeros(2, 4, 1, 5, 6)], {},
         {"inputs": "[N, T=4, 1, 5, 6]", "module.pixels": "[N, T, 5, 3]", "module.rows": "[N, T, 3]"}),
        (TimeDistributed(nn.Conv2d(1, 3, 3), chunk=4), [torch.zeros(8, 4, 1, 16, 16)], {},
         {"inputs": "[N, T=4, 1, 16, 16]", "module": "[N, T, 3, 14, 14]"}),
        (nn.Sequential(nn.Linear(4, 4)), [torch.zeros(4, 4, 4)], {}, {"inputs": "[N, T=4, 4]", "0": "[N, T, 4]"}),
        (TimeDistributed(TimeDistributed(nn.Linear(6, 2))), [torch.zeros(2, 4, 3, 5, 6)], {"num_axes": 3},
         {"inputs": "[N, T1=4, T2=3, 5, 6]", "module": "[N, T1, T2, 5, 2]"}),
        (Padded(), [torch.zeros(3, 7, 6)], {"lengths": torch.tensor([7, 2, 3])},
         {"inputs": "([N, T=7, 6], [N])", "lstm": "([N, T, 8], ([2, N, 4], [2, N, 4]))",
          "between": "[N, 3, 6 (by T)]", "": "(Result, [N, 3, 6 (by T)], None)", "unused": "not called"}),
        (nn.Sequential(nn.Flatten(1), nn.Linear(4 * 6, 5)), [torch.zeros(2, 4, 6)], {},
         {"inputs": "[N, T=4, 6]", "0": "[N, 6*T]", "1": "[N, 5]"}),
    ],
)  # fmt: skip
def test_axes_that_depend_on_the_batch_or_the_steps_are_named(network, inputs, options, expected):
    assert {stage.name: stage.shape for stage in describe(network, *inputs, **options).stages} == expected
    assert not inputs[0].any()


def test_parameters_are_counted_once():
    assert describe(ConvLSTM(1, 2, 3), torch.zeros(2, 3, 1, 5, 5)).num_parameters == 8 * 9 + 8 * 2 * 9 + 8
    network = nn.Sequential(TimeDistributed(nn.Linear(6, 6)), nn.Linear(6, 6))
    network[1].weight = network[0].module.weight
    found = describe(network, torch.zeros(2, 4, 6))
    assert [stage.num_parameters for stage in found.stages[1:]] == [42, 6]
    assert str(found).splitlines()[-1].split() == ["total", "48"]
    with pytest.raises(ValueError, match="Attempted to use an uninitialized parameter"):
        describe(nn.Sequential(nn.Identity(), nn.LazyLinear(5)), torch.zeros(2, 4, 6))
    for inputs in ((), (3,), (torch.zeros(4),), (torch.zeros(0, 4, 4),)):
        with pytest.raises(ValueError, match="there is no tensor with 2 axes that are not empty"):
            describe(nn.Linear(4, 5), *inputs)


class Packs(nn.Module):
    """Packs the first of all steps, so that the layer reads samples and steps of one axis."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 5)

    def forward(self, inputs):
        lengths = torch.full((len(inputs),), inputs.shape[1])
        return self.lstm(pack_padded_sequence(inputs, lengths, batch_first=True))[1][0]


class StepsFirst(nn.Sequential):
    def forward(self, inputs):
        return super().forward(inputs.transpose(0, 1))


@pytest.mark.parametrize(
    ("network", "misreading"),
    [
        (nn.Sequential(nn.LSTM(6, 5)), "reads samples as steps; make it with batch_first=True."),
        (StepsFirst(LSTM(6, 5)), "reads samples as steps; give it x.transpose(0, 1)."),
        (nn.Sequential(nn.Flatten(1), nn.RNN(24, 5)), "reads samples as steps; give it [batch, steps, features]."),
        (nn.Sequential(nn.Flatten(0, 1), nn.RNN(6, 5)), "reads samples as steps; give it [batch, steps, features]."),
        (nn.Sequential(nn.LSTM(6, 5, batch_first=True)), ""),
        (StepsFirst(nn.LSTM(6, 5)), ""),
        (Packs(), ""),
    ],
)
def test_a_layer_that_reads_samples_as_steps_is_marked(network, misreading):
    found = describe(network, torch.zeros(8, 4, 6))
    stage = found.stages[-1]
    assert found.warnings() == [f"{stage.name} ({stage.layer}) {misreading}"] * bool(misreading)
    assert str(found).splitlines()[-2].rstrip().endswith(misreading or found.rows()[-2][3])


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (nn.LSTM(32, 5, batch_first=True), (2, 4, 2, 4, 4),
         "LSTM was given [N=2, T=4, 2, 4, 4]; it expects [batch, steps, 32]. "
         "x.flatten(2) keeps the step axis and gives [N, T, 32]."),
        (nn.Sequential(nn.Flatten(), nn.LSTM(16, 5, batch_first=True)), (2, 4, 16),
         "1 (LSTM) was given [N=2, 16*T=64]; it expects [batch, steps, 16]. "
         "The step axis was lost before: write x.flatten(2), which keeps it, for x.flatten(1)."),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), (2, 4, 1, 8, 8),
         "0 (Conv2d) was given [N=2, T=4, 1, 8, 8]; it expects [batch, 1, height, width]. "
         "TimeDistributed(layer) applies it to every step; x.flatten(1, 2) would mix the steps."),
        (nn.Conv2d(3, 2, 3), (2, 4, 8, 8, 3),
         "x.movedim(-1, -3) gives [..., 3, height, width]. TimeDistributed(layer) applies it to every step"),
        (nn.MaxPool2d(2), (2, 4, 3, 8, 8), "it expects [batch, channels, height, width]. TimeDistributed(layer) app"),
        (TimeDistributed(nn.Conv2d(1, 2, 3)), (8, 4, 28, 28),
         "module (Conv2d) was given [N*T=32, 28, 28]; it expects [batch, 1, height, width]."),
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.LSTM(8 * 38, 5, batch_first=True)), (2, 1, 30, 40),
         "1 (LSTM) was given [N=2, 8, 28, 38]; it expects [batch, steps, 304]. Maps have no step axis: "
         "x.movedim(2, 1).flatten(2) reads rows as steps and gives [N, 28, 304]; x.movedim(3, 1) takes columns"),
        (nn.Linear(1000, 5), (2, 4, 5184), "it expects [..., 1000]. Make the layer for inputs of size 5184, or change"),
        (TimeDistributed(nn.Conv2d(1, 2, 9)), (2, 4, 1, 5, 6), "Kernel size can't be greater than actual input size"),
        (nn.Sequential(nn.LSTM(6, 5, batch_first=True), LSTM(5, 5)), (8, 4, 6),
         "1 (LSTM) was given a tuple ([N=8, T=4, 5], ([1, N=8, 5], [1, N=8, 5])); it expects a tensor. A recurrent "
         "layer returns outputs and a state: pass on its outputs."),
    ],
)  # fmt: skip
def test_a_mismatch_is_explained(network, shape, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        describe(network, torch.zeros(shape))


@pytest.mark.parametrize("layer", [nn.LSTM(16, 5, batch_first=True), LSTM(16, 5)])
def test_the_error_itself_is_shown_if_the_inputs_fit(layer):
    message = "LSTM was given ([N=8, T=4, 16], ([N=8, 1, 5], [N=8, 1, 5])): RuntimeError: Expected hidden[0] size"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        describe(layer, torch.zeros(8, 4, 16), (torch.zeros(8, 1, 5),) * 2)

"""Maps the flattened feature maps of every step to outputs per step, with an LSTM or one of its alternatives.

The maps are channels last, as the convs return them. The weights of LSTM and GRU are stored in the order of flattened
[features, rows, columns], as in Keras and PyTorch, and reordered in every forward pass: reordering 20 x 4160 weights
costs less than reordering the features of a whole batch.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from quadrant_lstm.data.frames import STEPS


class FlattenMaps(nn.Module):
    """Flattens maps with channels last. Copies nothing if they are channels last in memory."""

    def forward(
        self, maps: Float[Tensor, "batch steps features rows columns"]
    ) -> Float[Tensor, "batch steps rows*columns*features"]:
        return maps.permute(0, 1, 3, 4, 2).flatten(2)


def equal_units(kind: str, num_inputs: int, lstm_units: int) -> int:
    """Returns the number of units that gives this kind of layer about as many parameters as an LSTM of `lstm_units`."""
    num_parameters = 4 * lstm_units * (num_inputs + lstm_units + 2)
    units: float = lstm_units
    if kind == "gru":  # 3 * units * (inputs + units + 2) parameters
        units = (math.sqrt((num_inputs + 2) ** 2 + 4 * num_parameters / 3) - (num_inputs + 2)) / 2
    elif kind == "concat":
        units = num_parameters / (STEPS * num_inputs + 1)
    elif kind != "lstm":
        units = num_parameters / (num_inputs + 1)
    return max(1, round(units))


class MapsRNN(nn.RNNBase):
    """The common base of MapsLSTM and MapsGRU."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, num_features: int, num_positions: int, num_units: int):
        inputs = num_features * num_positions
        super().__init__(inputs, num_units, batch_first=True)  # type: ignore[call-arg, arg-type]  # of LSTM, GRU
        self.num_features = num_features

    def input_weight(self) -> Float[Tensor, "gates flat"]:
        """Returns the input weights in the order of channels-last maps."""
        return self.weight_ih_l0.unflatten(1, (self.num_features, -1)).transpose(1, 2).flatten(1)


class LSTMStep(NamedTuple):
    """The gates (PyTorch's names) and states of one step of an LSTM, each [batch, units]."""

    i: Tensor  # input gate
    f: Tensor  # forget gate
    g: Tensor  # cell candidate
    o: Tensor  # output gate
    cell: Tensor
    output: Tensor


class MapsLSTM(MapsRNN, nn.LSTM):
    """A one-layer LSTM over flattened maps, with the parameters of nn.LSTM.

    With few steps and few units, an unrolled cell is faster than nn.LSTM, which is made for long sequences.
    """

    def forward(self, maps: Float[Tensor, "batch steps flat"]) -> Float[Tensor, "batch steps units"]:  # type: ignore[override]
        return torch.stack([step.output for step in self.unrolled(maps)], dim=1)

    def unrolled(self, maps: Float[Tensor, "batch steps flat"]) -> Iterator[LSTMStep]:
        gates = linear(maps, self.input_weight(), self.bias_ih_l0 + self.bias_hh_l0)
        gates = gates.to(self.weight_hh_l0.dtype)  # autocast leaves them in bf16
        cell: Tensor | None = None  # None stands for the zero state before the first step
        output = None
        for step in gates.unbind(1):
            if output is not None:
                step = step + output @ self.weight_hh_l0.T
            i, f, g, o = step.chunk(4, dim=1)  # Keras has the same order
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            cell = i * g if cell is None else f * cell + i * g
            output = o * cell.tanh()
            yield LSTMStep(i, f, g, o, cell, output)


class MapsGRU(MapsRNN, nn.GRU):
    """A one-layer GRU over flattened maps, with the parameters of nn.GRU."""

    def forward(  # type: ignore[override]
        self, maps: Float[Tensor, "batch steps flat"]
    ) -> Float[Tensor, "batch steps units"]:
        gates = linear(maps, self.input_weight(), self.bias_ih_l0).to(self.weight_hh_l0.dtype)
        state = torch.zeros_like(gates[:, 0, : self.hidden_size])
        outputs: list[Tensor] = []
        for step in gates.unbind(1):
            r, z, n = step.chunk(3, dim=1)  # reset gate, update gate, candidate state
            r_state, z_state, n_state = linear(state, self.weight_hh_l0, self.bias_hh_l0).chunk(3, dim=1)
            z = (z + z_state).sigmoid()
            n = (n + (r + r_state).sigmoid() * n_state).tanh()
            state = z * state + (1 - z) * n
            outputs.append(state)
        return torch.stack(outputs, dim=1)


class PerStep(nn.Linear):
    """Applies a linear layer and tanh to every step separately, without memory."""

    def __init__(self, num_features: int, num_positions: int, num_units: int):
        super().__init__(num_features * num_positions, num_units)

    def forward(self, maps: Float[Tensor, "batch steps flat"]) -> Float[Tensor, "batch steps units"]:
        return super().forward(maps).tanh()


class RunningMean(PerStep):
    """Averages the outputs of PerStep over the steps so far, so that the order of the steps makes no difference."""

    def forward(self, maps: Float[Tensor, "batch steps flat"]) -> Float[Tensor, "batch steps units"]:
        outputs = super().forward(maps)
        return outputs.cumsum(1) / torch.arange(1, outputs.shape[1] + 1, device=outputs.device)[:, None]


class Concatenated(nn.Linear):
    """Applies a linear layer and tanh to all steps concatenated. There is one output, after the last step."""

    def __init__(self, num_features: int, num_positions: int, num_units: int):
        super().__init__(STEPS * num_features * num_positions, num_units)

    def forward(self, maps: Float[Tensor, "batch steps flat"]) -> Float[Tensor, "batch 1 units"]:
        return super().forward(maps.flatten(1))[:, None].tanh()


LAYERS = {"lstm": MapsLSTM, "gru": MapsGRU, "mean": RunningMean, "last": PerStep, "concat": Concatenated}


class LastStep(nn.Module):
    def forward(self, outputs: Float[Tensor, "batch steps units"]) -> Float[Tensor, "batch units"]:
        return outputs[:, -1]

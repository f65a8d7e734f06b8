"""Feature maps of every step -> what is known after every step: by an LSTM, or by what may stand in its place.

The maps come channels last, as the convs leave them, while the weights of LSTM and GRU are kept in the order that
flattening [features, rows, columns] gives, which is Keras's and PyTorch's. It is cheaper to reorder 20 x 4160 weights a
batch than all its features.
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
    """No copy where the maps are channels last in memory."""

    def forward(
        self, maps: Float[Tensor, "batch steps features rows columns"]
    ) -> Float[Tensor, "batch steps rows*columns*features"]:
        return maps.permute(0, 1, 3, 4, 2).flatten(2)


def equal_units(kind: str, num_inputs: int, lstm_units: int) -> int:
    """The units that give this kind as many parameters as an LSTM of `lstm_units` has, or nearly."""
    num_parameters = 4 * lstm_units * (num_inputs + lstm_units + 2)
    units: float = lstm_units
    if kind == "gru":  # 3 * units * (inputs + units + 2) parameters
        units = (math.sqrt((num_inputs + 2) ** 2 + 4 * num_parameters / 3) - (num_inputs + 2)) / 2
    elif kind == "concat":
        units = num_parameters / (STEPS * num_inputs + 1)
    elif kind != "lstm":
        units = num_parameters / (num_inputs + 1)
    return max(1, round(units))


class OverMaps(nn.RNNBase):
    """What LSTM and GRU over flattened maps share."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, num_features: int, num_positions: int, num_units: int):
        inputs = num_features * num_positions
        super().__init__(inputs, num_units, batch_first=True)  # type: ignore[call-arg, arg-type]  # LSTM's or GRU's
        self.num_features = num_features

    def input_weight(self) -> Float[Tensor, "gates flat"]:
        """In the order of the maps."""
        return self.weight_ih_l0.unflatten(1, (self.num_features, -1)).transpose(1, 2).flatten(1)


class LSTMStep(NamedTuple):
    """A step of an LSTM, by PyTorch's names; each [batch, units]."""

    i: Tensor  # input gate
    f: Tensor  # forget gate
    g: Tensor  # cell candidate
    o: Tensor  # output gate
    cell: Tensor
    output: Tensor


class MapsLSTM(OverMaps, nn.LSTM):
    """An LSTM of one layer over flattened maps; the parameters of nn.LSTM under their names.

    Few steps and few units: an unrolled cell is faster than the library's layer, which splits its work for long ones.
    """

    def forward(  # type: ignore[override]
        self, maps: Float[Tensor, "batch steps flat"]
    ) -> Float[Tensor, "batch steps units"]:
        return torch.stack([step.output for step in self.unrolled(maps)], dim=1)

    def unrolled(self, maps: Float[Tensor, "batch steps flat"]) -> Iterator[LSTMStep]:
        gates = linear(maps, self.input_weight(), self.bias_ih_l0 + self.bias_hh_l0)
        gates = gates.to(self.weight_hh_l0.dtype)  # autocast leaves them in bf16
        cell: Tensor | None = None  # before the first step, where the hidden state is zero too
        output = None
        for step in gates.unbind(1):
            if output is not None:
                step = step + output @ self.weight_hh_l0.T
            i, f, g, o = step.chunk(4, dim=1)  # Keras has the same order
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            cell = i * g if cell is None else f * cell + i * g
            output = o * cell.tanh()
            yield LSTMStep(i, f, g, o, cell, output)


class MapsGRU(OverMaps, nn.GRU):
    """A GRU likewise."""

    def forward(  # type: ignore[override]
        self, maps: Float[Tensor, "batch steps flat"]
    ) -> Float[Tensor, "batch steps units"]:
        gates = linear(maps, self.input_weight(), self.bias_ih_l0).to(self.weight_hh_l0.dtype)
        state = torch.zeros_like(gates[:, 0, : self.hidden_size])
        outputs: list[Tensor] = []
        for step in gates.unbind(1):
            r, z, n = step.chunk(3, dim=1)  # reset gate, update gate, new state
            r_state, z_state, n_state = linear(state, self.weight_hh_l0, self.bias_hh_l0).chunk(3, dim=1)
            z = (z + z_state).sigmoid()
            n = (n + (r + r_state).sigmoid() * n_state).tanh()
            state = z * state + (1 - z) * n
            outputs.append(state)
        return torch.stack(outputs, dim=1)


class EachStepAlone(nn.Linear):
    """A layer over each step: nothing is remembered."""

    def __init__(self, num_features: int, num_positions: int, num_units: int):
        super().__init__(num_features * num_positions, num_units)

    def forward(self, maps: Float[Tensor, "batch steps flat"]) -> Float[Tensor, "batch steps units"]:
        return super().forward(maps).tanh()


class MeanSoFar(EachStepAlone):
    """The mean of it over the steps so far: their order makes no difference."""

    def forward(self, maps: Float[Tensor, "batch steps flat"]) -> Float[Tensor, "batch steps units"]:
        outputs = super().forward(maps)
        return outputs.cumsum(1) / torch.arange(1, outputs.shape[1] + 1, device=outputs.device)[:, None]


class Concatenated(nn.Linear):
    """A layer over all steps side by side: one output, after the last."""

    def __init__(self, num_features: int, num_positions: int, num_units: int):
        super().__init__(STEPS * num_features * num_positions, num_units)

    def forward(self, maps: Float[Tensor, "batch steps flat"]) -> Float[Tensor, "batch 1 units"]:
        return super().forward(maps.flatten(1))[:, None].tanh()


KINDS = {"lstm": MapsLSTM, "gru": MapsGRU, "mean": MeanSoFar, "last": EachStepAlone, "concat": Concatenated}


class LastStep(nn.Module):
    def forward(self, outputs: Float[Tensor, "batch steps units"]) -> Float[Tensor, "batch units"]:
        return outputs[:, -1]

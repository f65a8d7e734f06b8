"""Defines LSTM and GRU over sequences that may be padded, with the parameters and results of nn.LSTM and nn.GRU.

outputs, (h, c) = LSTM(32 * 26 * 5, 64)(maps, lengths=lengths)    # maps [N, T, 32, 26, 5]; outputs [N, T, 64]
"""

import functools
import math
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from quadrant_lstm.model.unroll import State, unroll


class PaddedRNN(nn.RNNBase):
    """The common base of LSTM and GRU. The axes of an input after the steps are flattened.

    `lengths` are the numbers of real steps, at least one, of sequences that are padded at their ends. The outputs of
    padding are zeros, and the state that is returned is that of the last real step. It can be given to a later call,
    to resume where a sequence was cut. Raises ValueError for inputs that do not fit.

    Exporters make the number of steps of nn.LSTM and nn.GRU a constant. For them, the layers are written as loops.
    """

    num_states: int

    def __init__(self, input_size: int, num_units: int, num_layers: int = 1, bidirectional: bool = False):
        options: Any = {"num_layers": num_layers, "bidirectional": bidirectional, "batch_first": True}
        super().__init__(input_size, num_units, **options)  # type: ignore[arg-type]  # of LSTM, GRU

    def forward(
        self,
        inputs: Float[Tensor, "batch steps ..."],
        state: Any = None,
        lengths: Int64[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch steps units"], Any]:
        if inputs.ndim < 3 or math.prod(inputs.shape[2:]) != self.input_size:
            raise ValueError(
                f"{type(self).__name__}: inputs have the shape {list(inputs.shape)}; expected [batch, steps, ...] with "
                f"{self.input_size} values per step."
            )
        inputs = inputs.flatten(2)
        if torch.compiler.is_exporting():
            return self.forward_in_loops(inputs, state, lengths)
        if lengths is None:
            return super().forward(inputs, state)
        packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, state = super().forward(packed, state)
        return pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])[0], state

    def forward_in_loops(self, inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        """A state has an entry per layer and direction: layer 0 forward, layer 0 backward, layer 1 forward, ..."""
        zeros = inputs.new_zeros(self.num_layers * self.num_directions, inputs.shape[0], self.hidden_size)
        states = (zeros,) * self.num_states if state is None else state if self.num_states > 1 else (state,)
        entries = zip(*states, strict=True)
        finals = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: self.num_directions]:
                ordered = reverse(inputs, lengths) if "reverse" in suffix else inputs
                gates = linear(
                    ordered, self.get_parameter(f"weight_ih{suffix}"), self.get_parameter(f"bias_ih{suffix}")
                )
                output, final = unroll(functools.partial(self.step, suffix), next(entries), gates, lengths)
                outputs.append(reverse(output, lengths) if "reverse" in suffix else output)
                finals.append(final)
            inputs = torch.cat(outputs, dim=2)
        final_states = tuple(torch.stack(tensors) for tensors in zip(*finals, strict=True))
        return inputs, final_states if self.num_states > 1 else final_states[0]

    @property
    def num_directions(self) -> int:
        return 1 + self.bidirectional

    def recurrent_gates(self, suffix: str, h: Float[Tensor, "batch units"]) -> Float[Tensor, "batch gates"]:
        return linear(h, self.get_parameter(f"weight_hh{suffix}"), self.get_parameter(f"bias_hh{suffix}"))

    def step(self, suffix: str, state: State, gates: Float[Tensor, "batch gates"]) -> State:
        """Returns the next state. `suffix` is that of the parameters of a layer and direction."""
        raise NotImplementedError


class LSTM(PaddedRNN, nn.LSTM):  # type: ignore[misc]
    """Returns the outputs and the states (h, c), each [layers * directions, batch, units]."""

    num_states = 2

    def step(self, suffix: str, state: State, gates: Float[Tensor, "batch gates"]) -> State:
        h, c = state
        i, f, g, o = (gates + self.recurrent_gates(suffix, h)).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRU(PaddedRNN, nn.GRU):  # type: ignore[misc]
    """Returns the outputs and the state h, [layers * directions, batch, units]."""

    num_states = 1

    def step(self, suffix: str, state: State, gates: Float[Tensor, "batch gates"]) -> State:
        (h,) = state
        r, z, n = gates.chunk(3, dim=1)  # reset gate, update gate, candidate state
        r_state, z_state, n_state = self.recurrent_gates(suffix, h).chunk(3, dim=1)
        z = (z + z_state).sigmoid()
        n = (n + (r + r_state).sigmoid() * n_state).tanh()
        return (z * h + (1 - z) * n,)


def reverse(
    sequences: Float[Tensor, "batch steps values"], lengths: Int64[Tensor, " batch"] | None
) -> Float[Tensor, "batch steps values"]:
    """Reverses the real steps of each sequence. Padding stays where it is."""
    if lengths is None:
        return sequences.flip(1)
    steps, ends = torch.arange(sequences.shape[1], device=sequences.device), lengths[:, None]
    places = torch.where(steps < ends, ends - 1 - steps, steps)
    return sequences.gather(1, places[:, :, None].expand(-1, -1, sequences.shape[2]))

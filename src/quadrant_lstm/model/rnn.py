"""Defines LSTM and GRU over sequences that may be padded, with the weights and results of nn.LSTM and nn.GRU.

outputs, (h, c) = LSTM(32 * 26 * 5, 64)(maps, lengths=lengths)    # maps [N, T, 32, 26, 5]; outputs [N, T, 64]
"""

from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from quadrant_lstm.model.padded_rnn import PaddedRNN
from quadrant_lstm.model.unroll import State


class LSTMStep(NamedTuple):
    """The gates (PyTorch's names) and states of one step of an LSTM, each [batch, units]."""

    i: Tensor  # input gate
    f: Tensor  # forget gate
    g: Tensor  # cell candidate
    o: Tensor  # output gate
    cell: Tensor
    output: Tensor


class LSTM(PaddedRNN, nn.LSTM):  # type: ignore[misc]
    """Returns the outputs and the states (h, c), each [layers * directions, batch, units]."""

    num_states = 2

    def input_bias(self, suffix: str) -> Tensor:
        return self.get_parameter(f"bias_ih{suffix}") + self.get_parameter(f"bias_hh{suffix}")

    def step(self, suffix: str, state: State, gates: Float[Tensor, "batch gates"]) -> State:
        new = self.step_in_detail(suffix, state, gates)
        return new.output, new.cell

    def step_in_detail(self, suffix: str, state: State, gates: Float[Tensor, "batch gates"]) -> LSTMStep:
        h, c = state
        i, f, g, o = (gates + h @ self.get_parameter(f"weight_hh{suffix}").T).chunk(4, dim=1)  # Keras's order, too
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * c + i * g
        return LSTMStep(i, f, g, o, c, o * c.tanh())

    def steps_of_first_layer(self, inputs: Float[Tensor, "batch steps ..."]) -> Iterator[LSTMStep]:
        """Yields the gates and states after each step, to look at them."""
        c = h = inputs.new_zeros(inputs.shape[0], self.hidden_size)
        for gates in self.input_gates("_l0", inputs.flatten(2)).unbind(1):
            step = self.step_in_detail("_l0", (h, c), gates)
            yield step
            h, c = step.output, step.cell


class GRU(PaddedRNN, nn.GRU):  # type: ignore[misc]
    """Returns the outputs and the state h, [layers * directions, batch, units]."""

    num_states = 1

    def step(self, suffix: str, state: State, gates: Float[Tensor, "batch gates"]) -> State:
        (h,) = state
        r, z, n = gates.chunk(3, dim=1)  # reset gate, update gate, candidate state
        recurrent = linear(h, self.get_parameter(f"weight_hh{suffix}"), self.get_parameter(f"bias_hh{suffix}"))
        r_state, z_state, n_state = recurrent.chunk(3, dim=1)
        z = (z + z_state).sigmoid()
        n = (n + (r + r_state).sigmoid() * n_state).tanh()
        return (z * h + (1 - z) * n,)

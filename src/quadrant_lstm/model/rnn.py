"""Defines LSTM and GRU over sequences that may be padded, with the weights and results of nn.LSTM and nn.GRU.

outputs, (h, c) = LSTM(32 * 26 * 5, 64)(maps, lengths=lengths)    # maps [N, T, 32, 26, 5]; outputs [N, T, 64]
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from quadrant_lstm.kinds import Count
from quadrant_lstm.model.protocols import Lengths, Sequences, add_axes, check_lengths

# The step of a recurrent layer, applied to every step of sequences that may differ in length
#
# This is a loop, whose body torch.export and the ONNX exporter repeat for each step. For exports with a dynamic number
# of steps, `scan` is used instead of the loop.


State = tuple[Tensor, ...]
Step = Callable[[State, Tensor], State]


def unroll(step: Step, state: State, inputs: Sequences, lengths: Lengths = None) -> tuple[Sequences, State]:
    """Returns the first tensor of the state after each step, and the state after the last one.

    With `lengths`, the numbers of real steps, the state of a sequence stays as it is after its last real step, and the
    outputs of the steps after that are zeros.
    """
    if torch.compiler.is_exporting() and isinstance(inputs.shape[1], torch.SymInt):
        return unroll_by_scan(step, state, inputs, lengths)
    outputs = []
    for number, frame in enumerate(inputs.unbind(1)):
        new = step(state, frame)
        state, output = (new, new[0]) if lengths is None else keep_ended(lengths > number, new, state)
        outputs.append(output)
    return torch.stack(outputs, dim=1), state


def unroll_by_scan(step: Step, state: State, inputs: Tensor, lengths: Tensor | None) -> tuple[Tensor, State]:
    from quadrant_lstm.compat import scan  # here, because it imports Hydra

    numbers = torch.arange(inputs.shape[1], device=inputs.device)
    ends = numbers.new_full((inputs.shape[0],), inputs.shape[1]) if lengths is None else lengths

    def body(state: State, step_inputs: tuple[Tensor, Tensor]) -> tuple[State, Tensor]:
        number, frame = step_inputs
        new, output = keep_ended(ends > number, step(state, frame), state)
        return new, output.clone()  # scan refuses outputs that are views of the state

    state = tuple(tensor.clone() for tensor in state)  # scan takes a tensor that occurs twice for one
    final, outputs = scan(body, state, (numbers, inputs.transpose(0, 1)))
    return outputs.transpose(0, 1), tuple(final)


def keep_ended(is_real: Tensor, new: State, old: State) -> tuple[State, Tensor]:
    """Returns the new state for sequences whose step is real and the old one for the others, and the outputs."""
    pairs = zip(new, old, strict=True)
    state = tuple(torch.where(add_axes(is_real, like=tensor), tensor, before) for tensor, before in pairs)
    return state, new[0].masked_fill(~add_axes(is_real, like=new[0]), 0)


def lstm_step(gates: Float[Tensor, "batch gates ..."], c: Tensor) -> tuple[Tensor, ...]:
    """Returns the gates i, f, g and o (PyTorch's names, in Keras's order, too), the cell state and the output."""
    i, f, g, o = gates.chunk(4, dim=1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c + i * g
    return i, f, g, o, c, o * c.tanh()


# Padded sequences: torch's kernels, or a loop over the steps


# Measured: training steps of LSTM with 5 and 64 units, batch 64, on one thread of a Xeon. With 4,160 features, the
# loop takes 0.6 to 0.85 of nn.LSTM's time for 4, 8, 16 and 32 steps. With 128 features, it takes 1.1 to 1.6 times as
# long for 4 and 8 steps, and 1.5 to 2.2 times for 16 and 32.
FEW_STEPS = 8


class PaddedRNN(nn.RNNBase):
    """The common base of LSTM and GRU. The axes of an input after the steps are flattened.

    `lengths` are the numbers of real steps, at least one, of sequences that are padded at their ends. The outputs of
    padding are zeros, and the state that is returned is that of the last real step. It can be given to a later call,
    to resume where a sequence was cut. Raises ValueError for lengths that do not fit.

    With many features and few steps, as in the question, a loop is faster on a CPU than nn.LSTM. Exporters make the
    number of steps of nn.LSTM a constant, so they are given the loop as well.

    With `num_channels`, the inputs are maps with so many channels that were flattened channels last. The weights
    are stored in the order of channels first all the same, as nn.Flatten has it, and reordered in every forward
    pass: reordering 20 x 4160 weights costs less than reordering the features of a whole batch.
    """

    def __init__(
        self, input_size: int, num_units: int, num_layers: Count = 1, bidirectional: bool = False, num_channels: int = 0
    ):
        options: Any = {"num_layers": num_layers, "bidirectional": bidirectional, "batch_first": True}
        super().__init__(input_size, num_units, **options)  # type: ignore[arg-type]  # of LSTM, GRU
        self.num_channels = num_channels

    def forward(
        self, inputs: Sequences, state: Any = None, lengths: Lengths = None
    ) -> tuple[Float[Tensor, "batch steps units"], Any]:
        check_lengths(inputs, lengths)
        inputs = inputs.flatten(2)
        # is_exporting() comes first: a comparison of the number of steps would restrict the exported program
        if torch.compiler.is_exporting() or (inputs.device.type == "cpu" and inputs.shape[1] <= FEW_STEPS):
            return self.forward_in_loops(inputs, state, lengths)
        if self.num_channels:
            inputs = swap_axes(inputs, -1, self.num_channels)
        if lengths is None:
            return super().forward(inputs, state)
        packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, state = super().forward(packed, state)
        return pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])[0], state

    def forward_in_loops(self, inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        """A state has an entry per layer and direction: layer 0 forward, layer 0 backward, layer 1 forward, ..."""
        suffixes, is_lstm = ("", "_reverse") if self.bidirectional else ("",), self.mode == "LSTM"
        if state is None:
            weight = self.get_parameter("weight_hh_l0")
            zeros = weight.new_zeros(self.num_layers * len(suffixes), inputs.shape[0], self.hidden_size)
            state = (zeros, zeros) if is_lstm else zeros
        else:
            self.check_forward_args(inputs, state, None)
        entries = zip(*(state if is_lstm else (state,)), strict=True)
        finals = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in suffixes:
                ordered = reverse(inputs, lengths) if suffix else inputs
                name = f"_l{layer}{suffix}"
                gates = self.input_gates(name, ordered)
                output, final = unroll(functools.partial(self.step, name), next(entries), gates, lengths)
                outputs.append(reverse(output, lengths) if suffix else output)
                finals.append(final)
            inputs = torch.cat(outputs, dim=2) if self.bidirectional else outputs[0]
        final_states = tuple(torch.stack(tensors) for tensors in zip(*finals, strict=True))
        return inputs, final_states if is_lstm else final_states[0]

    def input_gates(self, suffix: str, inputs: Tensor) -> Float[Tensor, "batch steps gates"]:
        """Returns what the inputs of all steps contribute to the gates. Autocast would leave it in bf16."""
        weight = self.input_weight(suffix)
        bias: Tensor = self.get_parameter(f"bias_ih{suffix}")
        if self.mode == "LSTM":  # the second bias of a GRU is not added to all gates alike
            bias = bias + self.get_parameter(f"bias_hh{suffix}")
        return linear(inputs, weight, bias).to(weight.dtype)

    def input_weight(self, suffix: str) -> Float[Tensor, "gates values"]:
        """Returns the weight in the order of the inputs."""
        weight: Tensor = self.get_parameter(f"weight_ih{suffix}")
        return swap_axes(weight, self.num_channels, -1) if self.num_channels and suffix.startswith("_l0") else weight

    def step(self, suffix: str, state: State, gates: Float[Tensor, "batch gates"]) -> State:
        """Returns the next state. `suffix` is that of the parameters of a layer and direction."""
        raise NotImplementedError


def swap_axes(values: Float[Tensor, "... values"], *sizes: int) -> Float[Tensor, "... values"]:
    """Returns values that were flattened from two axes of these sizes, flattened in the other order of the axes."""
    return values.unflatten(-1, sizes).transpose(-1, -2).flatten(-2)


def reverse(sequences: Sequences, lengths: Lengths) -> Sequences:
    """Reverses the real steps of each sequence. Padding stays where it is."""
    if lengths is None:
        return sequences.flip(1)
    steps, ends = torch.arange(sequences.shape[1], device=sequences.device), lengths[:, None]
    places = torch.where(steps < ends, ends - 1 - steps, steps)
    return sequences.gather(1, places[:, :, None].expand(-1, -1, sequences.shape[2]))


# The layers


class LSTM(PaddedRNN, nn.LSTM):  # type: ignore[misc]
    """Returns the outputs and the states (h, c), each [layers * directions, batch, units]."""

    def step(self, suffix: str, state: State, gates: Float[Tensor, "batch gates"]) -> State:
        h, c = state
        *_, c, h = lstm_step(gates + h @ self.get_parameter(f"weight_hh{suffix}").T, c)
        return h, c

    def steps_of_first_layer(self, inputs: Sequences) -> Iterator[tuple[Tensor, ...]]:
        """Yields what lstm_step returns at each step, to look at it."""
        c = h = inputs.new_zeros(inputs.shape[0], self.hidden_size)
        for gates in self.input_gates("_l0", inputs.flatten(2)).unbind(1):
            *_, c, h = step = lstm_step(gates + h @ self.get_parameter("weight_hh_l0").T, c)
            yield step


class GRU(PaddedRNN, nn.GRU):  # type: ignore[misc]
    """Returns the outputs and the state h, [layers * directions, batch, units]."""

    def step(self, suffix: str, state: State, gates: Float[Tensor, "batch gates"]) -> State:
        (h,) = state
        r, z, n = gates.chunk(3, dim=1)  # reset gate, update gate, candidate state
        recurrent = linear(h, self.get_parameter(f"weight_hh{suffix}"), self.get_parameter(f"bias_hh{suffix}"))
        r_state, z_state, n_state = recurrent.chunk(3, dim=1)
        z = (z + z_state).sigmoid()
        n = (n + (r + r_state).sigmoid() * n_state).tanh()
        return (z * h + (1 - z) * n,)

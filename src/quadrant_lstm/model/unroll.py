"""Applies the step of a recurrent layer to every step of a batch of sequences, which may differ in length.

This is a loop, whose body torch.export and the ONNX exporter repeat for each step. For exports with a dynamic number of
steps, `scan` is used instead of the loop; it is the loop of exported programs (torch 2.13; still private).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch._higher_order_ops import scan

from quadrant_lstm.model.padding import add_axes

State = tuple[Tensor, ...]
Step = Callable[[State, Tensor], State]


def unroll(
    step: Step, state: State, inputs: Float[Tensor, "batch steps ..."], lengths: Int64[Tensor, " batch"] | None = None
) -> tuple[Float[Tensor, "batch steps ..."], State]:
    """Returns the first tensor of the state after each step, and the state after the last one.

    With `lengths`, the numbers of real steps, the state of a sequence stays as it is after its last real step, and the
    outputs of the steps after that are zeros.
    """
    if torch.compiler.is_exporting() and isinstance(inputs.shape[1], torch.SymInt):
        return unroll_by_scan(step, state, inputs, lengths)
    outputs = []
    for number, frame in enumerate(inputs.unbind(1)):
        new = step(state, frame)
        is_real = None if lengths is None else lengths > number
        state, output = (new, new[0]) if is_real is None else keep_ended(is_real, new, state)
        outputs.append(output)
    return torch.stack(outputs, dim=1), state


def unroll_by_scan(step: Step, state: State, inputs: Tensor, lengths: Tensor | None) -> tuple[Tensor, State]:
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

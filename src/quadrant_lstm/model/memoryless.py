"""Defines what a recurrent layer can be compared with: layers without recurrence.

Each takes inputs [batch, steps, ...] and `lengths`, as the layers of rnn.py do, and returns None instead of a state.
"""

from torch import nn

from quadrant_lstm.model.protocols import Lengths, Outputs, Sequences, real_steps


class PerStep(nn.Linear):
    """Applies a linear layer and tanh to every step separately."""

    def __init__(self, input_size: int, num_units: int):
        super().__init__(input_size, num_units)

    def forward(self, inputs: Sequences, lengths: Lengths = None) -> tuple[Outputs, None]:  # type: ignore[override]
        return clear_padding(super().forward(inputs.flatten(2)).tanh(), lengths), None


class RunningMean(PerStep):
    """Averages the outputs of PerStep over the steps so far, so that the order of the steps makes no difference."""

    def forward(self, inputs: Sequences, lengths: Lengths = None) -> tuple[Outputs, None]:  # type: ignore[override]
        outputs, _ = super().forward(inputs, lengths)
        counts = real_steps(outputs, lengths).cumsum(1)
        return clear_padding(outputs.cumsum(1) / counts[:, :, None], lengths), None


class Concatenated(nn.Linear):
    """Applies a linear layer and tanh to all steps concatenated. There is one output, after the last step.

    Padding counts as zeros. The number of steps is always the same.
    """

    reads_all_steps = True

    def __init__(self, input_size: int, num_units: int, num_steps: int):
        super().__init__(num_steps * input_size, num_units)

    def forward(self, inputs: Sequences, lengths: Lengths = None) -> tuple[Outputs, None]:  # type: ignore[override]
        return super().forward(clear_padding(inputs.flatten(2), lengths).flatten(1))[:, None].tanh(), None


def clear_padding(values: Sequences, lengths: Lengths) -> Sequences:
    return values if lengths is None else values.masked_fill(~real_steps(values, lengths)[:, :, None], 0)

"""Defines ConvLSTM: an LSTM whose states are maps and whose products are convolutions (Shi et al. 2015, 1506.04214)."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d

from quadrant_lstm.kinds import Count
from quadrant_lstm.model.protocols import Lengths, check_lengths
from quadrant_lstm.model.rnn import State, lstm_step, unroll


class ConvLSTM(nn.Module):
    """A convolutional LSTM over sequences of maps, without peepholes, as Keras's ConvLSTM2D.

        outputs, (h, c) = ConvLSTM(3, 16, kernel_size=3)(frames)
        # frames [N, T, 3, H, W]; outputs [N, T, 16, H, W]; h and c [N, 16, H, W]

    `padding`, "same" or "valid", applies to the input convolution; the recurrent convolution always uses "same". The
    gates are in the order i, f, g, o. A state that is returned can be given to a later call, to resume where a sequence
    was cut. `lengths` are the numbers of real steps of sequences that are padded at their ends.

    Raises ValueError for an even kernel size, which has no "same" padding that is symmetric, and for a state that does
    not fit.
    """

    reads_maps = True

    def __init__(
        self, in_channels: int, hidden_channels: int, kernel_size: Count, padding: Literal["same", "valid"] = "same"
    ):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"ConvLSTM: kernel_size {kernel_size} is not an odd number.")
        self.in_channels, self.hidden_channels = in_channels, hidden_channels
        self.kernel_size, self.padding = kernel_size, padding
        size = (kernel_size, kernel_size)
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_channels, in_channels, *size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_channels, hidden_channels, *size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_channels))
        for weight in (self.weight_ih, self.weight_hh):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # as nn.Conv2d does

    def forward(
        self,
        frames: Float[Tensor, "batch steps channels height width"],
        state: tuple[Tensor, Tensor] | None = None,
        lengths: Lengths = None,
    ) -> tuple[Float[Tensor, "batch steps hidden out_height out_width"], State]:
        check_lengths(frames, lengths)
        lost = 0 if self.padding == "same" else self.kernel_size - 1
        shape = frames.shape[0], self.hidden_channels, frames.shape[3] - lost, frames.shape[4] - lost
        if state is None:
            zeros = self.weight_hh.new_zeros(shape)  # under autocast, frames may be bf16
            state = (zeros, zeros)
        elif any(tensor.shape != shape for tensor in state):  # torch would repeat one of a single sample
            shapes = [list(tensor.shape) for tensor in state]
            raise ValueError(f"ConvLSTM: the state has the shapes {shapes}; expected {list(shape)} twice.")
        return unroll(self.step, state, frames, lengths)

    def step(self, state: State, frame: Float[Tensor, "batch channels height width"]) -> State:
        """Convolves frame by frame. One call for the frames of all steps takes 10 to 15 % more of a training step on a
        CPU, because its gates do not fit in the caches.
        """
        h, c = state
        gates = conv2d(frame, self.weight_ih, self.bias, padding=self.padding)
        *_, c, h = lstm_step(gates + conv2d(h, self.weight_hh, padding="same"), c)
        return h, c

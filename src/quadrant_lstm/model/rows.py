"""Encodes a frame with LSTMs only, as Keras's example mnist_hierarchical_rnn does (Li et al. 2015, arXiv 1506.01057).

[N, C, H, W] -> an LSTM over the pixels of each row -> [N, H, units] -> an LSTM over the rows -> [N, units]
"""

from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.model.time_distributed import TimeDistributed


class LastOutput(LSTM):
    """Maps [batch, steps, features] to the output after the last step."""

    def forward(self, inputs: Float[Tensor, "batch steps features"]) -> Float[Tensor, "batch units"]:  # type: ignore[override]
        return super().forward(inputs)[0][:, -1]


class RowsEncoder(nn.Module):
    """Maps [batch, channels, height, width] to [batch, units]."""

    def __init__(self, in_channels: int, row_units: int):
        super().__init__()
        self.pixels = TimeDistributed(LastOutput(in_channels, row_units))
        self.rows = LastOutput(row_units, row_units)

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch units"]:
        return self.rows(self.pixels(frames.permute(0, 2, 3, 1)))

"""Defines what a Reshape layer between convolutions and an LSTM gives, the first thing that the question tried.

A 2-D convolution has no step axis, so the steps are its channels. A reshape then makes a sequence of the maps, whose
rows are the steps. Shapes for N samples of four steps, with the values of conf/model/reshaped.yaml:

    [N, 4, 1, 56, 14] -> [N, 4, 56, 14] -> conv encoder -> [N, 32, 26, 5] -> [N, 26, 160] -> LSTM -> [N, 5] -> [N, 10]

It works, but the steps are lost: each convolution sums over all of them, and the LSTM reads the rows of the frames from
top to bottom, that is the four orderings one after another, each of them at all steps at once.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.data.orderings import Shape
from quadrant_lstm.model.dropout import Dropout
from quadrant_lstm.model.encoder import ConvEncoder
from quadrant_lstm.model.initialization import initialize_as_keras
from quadrant_lstm.model.protocols import Frames
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.model.sizes import encoded_shape


class Reshaped(nn.Module):
    """`frame_shape` (channels, height, width), `num_classes` and `num_steps` come from the data. Raises UserError
    if a kernel or the pool is larger than its input.
    """

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        num_steps: int,
        filters: Sequence[int],
        kernel_size: int,
        pool_size: int,
        dropout: float,
        lstm_units: int,
        dense_units: int,
    ):
        super().__init__()
        features, _, columns = encoded_shape(frame_shape, filters, kernel_size, pool_size)
        self.encoder = ConvEncoder(num_steps * frame_shape[0], filters, kernel_size, pool_size)
        self.dropout = Dropout(dropout)
        self.recurrent = LSTM(features * columns, lstm_units)
        self.dense = nn.Linear(lstm_units, dense_units)
        self.head = nn.Linear(dense_units, num_classes)
        self.apply(initialize_as_keras)

    def forward(self, frames: Frames) -> Float[Tensor, "batch classes"]:
        maps = self.encoder(frames.flatten(1, 2))
        outputs, _ = self.recurrent(self.dropout(maps.transpose(1, 2).flatten(2)))
        return self.head(self.dense(outputs[:, -1]))

"""Sequence of frames -> logits: the network of the question.

N samples of four steps, with the values of conf/model/cnn_lstm.yaml:

    [N, 4, 1, 56, 14] -> conv encoder at every step -> [N, 4, 32, 26, 5] -> flatten -> [N, 4, 4160] -> dropout
                      -> LSTM -> [N, 4, 5] -> last step -> [N, 5] -> dense -> [N, 50] -> head -> [N, 10]
"""

from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.config.values import Count, Counts, Probability
from quadrant_lstm.model.encoder import ConvEncoder
from quadrant_lstm.model.geometry import Shape
from quadrant_lstm.model.time_distributed import TimeDistributed


class LastStep(nn.Module):
    def forward(self, outputs: Float[Tensor, "batch steps units"]) -> Float[Tensor, "batch units"]:
        return outputs[:, -1]


class CNNLSTM(nn.Module):
    """`frame_shape` (channels, height, width) and `num_classes` come from the data, the rest from conf/model.

    Raises UserError where a kernel or the pool is larger than what reaches it.
    """

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        filters: Counts,
        kernel_size: Count,
        pool_size: Count,
        dropout: Probability,
        lstm_units: Count,
        dense_units: Count,
    ):
        super().__init__()
        encoder = ConvEncoder(frame_shape, filters, kernel_size, pool_size)
        self.encoder = TimeDistributed(encoder)
        self.flatten = nn.Flatten(start_dim=2)  # all but sample and step
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(encoder.num_features, lstm_units, batch_first=True)
        self.last_step = LastStep()
        self.dense = nn.Linear(lstm_units, dense_units)  # the question has no activation here
        self.head = nn.Linear(dense_units, num_classes)

    def forward(self, frames: Float[Tensor, "batch steps channels height width"]) -> Float[Tensor, "batch classes"]:
        features = self.dropout(self.flatten(self.encoder(frames)))
        outputs, _ = self.lstm(features)
        return self.head(self.dense(self.last_step(outputs)))

"""Defines the network of the question, which maps a sequence of frames to logits.

Shapes for N samples of four steps, with the values of conf/model/cnn_lstm.yaml:

    [N, 4, 1, 56, 14] -> conv encoder at every step -> [N, 4, 32, 26, 5] -> flatten -> [N, 4, 4160] -> dropout
                      -> LSTM -> [N, 4, 5] -> last step -> [N, 5] -> dense -> [N, 50] -> head -> [N, 10]
"""

import copy
import logging
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.data.frames import Shape
from quadrant_lstm.kinds import Orderings
from quadrant_lstm.model.dropout import Dropout
from quadrant_lstm.model.encoder import ConvEncoder
from quadrant_lstm.model.initialization import initialize_as_keras
from quadrant_lstm.model.protocols import Frames
from quadrant_lstm.model.recurrent import LAYERS, FlattenMaps, LastStep, equal_units
from quadrant_lstm.model.shared_tiles import SharedTiles
from quadrant_lstm.model.tile_plan import CannotShare
from quadrant_lstm.model.time_distributed import TimeDistributed

log = logging.getLogger(__name__)


class CNNLSTM(nn.Module):
    """Encodes every frame with convs, feeds the features to a recurrent layer, and classifies its last output.

    `frame_shape` (channels, height, width), `num_classes` and `orderings` come from the data; conf/model/cnn_lstm.yaml
    explains the other arguments. With `shared_tiles`, frames must be those of `sequences(images, orderings)`; use
    `in_full()` for any others. Raises UserError if a kernel or the pool is larger than its input.
    """

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        orderings: Orderings,
        filters: Sequence[int],
        kernel_size: int,
        pool_size: int,
        dropout: float,
        recurrent: str,
        lstm_units: int,
        dense_units: int,
        shared_tiles: bool,
    ):
        super().__init__()
        encoder = ConvEncoder(frame_shape, filters, kernel_size, pool_size)
        self.encoder = encoder_per_step(encoder, orderings, frame_shape[1] // len(orderings), shared_tiles)
        self.flatten = FlattenMaps()
        self.dropout = Dropout(dropout)
        units = equal_units(recurrent, encoder.num_features * encoder.num_positions, lstm_units)
        self.recurrent = LAYERS[recurrent](encoder.num_features, encoder.num_positions, units)
        self.last_step = LastStep()
        self.dense = nn.Linear(units, dense_units)  # the question has no activation here
        self.head = nn.Linear(dense_units, num_classes)
        self.apply(initialize_as_keras)

    def forward(self, frames: Frames) -> Float[Tensor, "batch classes"]:
        return self.head(self.dense(self.last_step(self.outputs_per_step(frames))))

    def logits_per_step(self, frames: Frames) -> Float[Tensor, "batch output_steps classes"]:
        return self.head(self.dense(self.outputs_per_step(frames)))

    def outputs_per_step(self, frames: Frames) -> Float[Tensor, "batch output_steps units"]:
        return self.recurrent(self.features(frames))

    def features(self, frames: Frames) -> Float[Tensor, "batch steps features"]:
        return self.dropout(self.flatten(self.encoder(frames)))

    def in_full(self) -> "CNNLSTM":
        network = copy.deepcopy(self)
        network.encoder = TimeDistributed(network.encoder.module)
        return network


def encoder_per_step(
    encoder: nn.Sequential, orderings: Orderings, quadrant_height: int, shared_tiles: bool
) -> TimeDistributed:
    if shared_tiles:
        try:
            return SharedTiles(encoder, orderings, quadrant_height)
        except CannotShare as reason:
            log.info(f"model.shared_tiles: every frame is encoded in full: {reason}")
    return TimeDistributed(encoder)

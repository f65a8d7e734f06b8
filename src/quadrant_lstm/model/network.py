"""Defines the network of the question, which maps a sequence of frames to logits.

Shapes for N samples of four steps, with the values of conf/model/cnn_lstm.yaml:

    [N, 4, 1, 56, 14] -> conv encoder at every step -> [N, 4, 32, 26, 5] -> flatten -> [N, 4, 4160] -> dropout
                      -> LSTM -> [N, 4, 5] -> last step -> [N, 5] -> dense -> [N, 50] -> head -> [N, 10]
"""

from collections.abc import Sequence
from functools import partial

from quadrant_lstm.data.orderings import Shape
from quadrant_lstm.kinds import Orderings
from quadrant_lstm.model.encoder import ConvEncoder
from quadrant_lstm.model.join import Join
from quadrant_lstm.model.parts import MakePart
from quadrant_lstm.model.sizes import encoded_shape


class CNNLSTM(Join):
    """Encodes every frame with convs, feeds the features to a recurrent layer, and classifies its last output.

    `frame_shape` (channels, height, width), `num_classes`, `num_steps` and `orderings` come from the data;
    conf/model/cnn_lstm.yaml explains the other arguments. Clips have no orderings. With `shared_tiles` and orderings,
    frames must be those of `sequences(images, orderings)`; use `in_full()` for any others. Raises UserError if a kernel
    or the pool is larger than its input.
    """

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        num_steps: int,
        orderings: Orderings | None,
        filters: Sequence[int],
        kernel_size: int,
        pool_size: int,
        recurrent: MakePart,
        dropout: float,
        lstm_units: int,
        dense_units: int,
        shared_tiles: bool,
    ):
        encoded_shape(frame_shape, filters, kernel_size, pool_size)  # checks the sizes
        encoder = partial(ConvEncoder, filters=filters, kernel_size=kernel_size, pool_size=pool_size)
        parts = (encoder, recurrent, dropout, lstm_units, dense_units, shared_tiles)
        super().__init__(frame_shape, num_classes, num_steps, orderings, *parts)

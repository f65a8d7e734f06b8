"""Defines a network like the question's, but built for accuracy. It maps a sequence of frames to logits.

The pieces are joined first, so that convs see the strokes that the cuts divide. All orderings show one image, which is
encoded and split into pieces again, and the features of all pieces of a frame enter the LSTM together. Shapes for N
samples of four orderings of quadrants, with the values of conf/model/deep.yaml:

    [N, 4, 1, 56, 14] -> join -> [N, 1, 28, 28] -> encoder -> [N, 96, 8, 8] -> split -> [N, 4, 96, 4, 4]
                      -> concatenate at every step -> [N, 4, 6144] -> dropout -> LSTM -> [N, 4, 128]
                      -> last step -> [N, 128] -> dropout -> head -> [N, 10]

Because convs see across the cuts, the features of a step also depend on pieces of later steps. With join_pieces=False,
each piece is encoded alone, with the same parameters.
"""

import copy
from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.data.orderings import Shape
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import Grid, Orderings
from quadrant_lstm.model.dropout import Dropout
from quadrant_lstm.model.encoder import PaddedEncoder
from quadrant_lstm.model.initialization import initialize_as_keras
from quadrant_lstm.model.joined_pieces import JoinedPieces, PiecePool
from quadrant_lstm.model.parts import MakePart
from quadrant_lstm.model.recurrent import LastStep, make_recurrent, num_outputs
from quadrant_lstm.model.sizes import NEEDS_PIECES, pooled_shape
from quadrant_lstm.model.step_classifier import StepClassifier


def encoder_of_images(piece_shape: Shape, grid: Grid, blocks: Sequence[Sequence[int]]) -> PaddedEncoder:
    """Returns an encoder of whole images, whose pools do not mix pieces."""
    encoder = PaddedEncoder(piece_shape[0], blocks)
    for number in range(1, len(blocks) + 1):
        _, height, width = pooled_shape(piece_shape, blocks[: number - 1])  # of a piece, before the pool
        if height % 2 or width % 2:
            setattr(encoder, f"pool{number}", PiecePool(grid))
    return encoder


class DeepCNNLSTM(StepClassifier):
    """`frame_shape` (channels, height, width), `num_classes`, `orderings` and `grid` come from the data;
    conf/model/deep.yaml explains the other arguments. Raises UserError for clips, and if there are too many blocks for
    the size of the pieces.
    """

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        orderings: Orderings | None,
        grid: Grid | None,
        blocks: Sequence[Sequence[int]],
        recurrent: MakePart,
        dropout: float,
        lstm_units: int,
        join_pieces: bool,
    ):
        super().__init__()
        if orderings is None or grid is None:
            raise UserError(NEEDS_PIECES)
        channels, stack, width = frame_shape
        piece_shape, num_steps = (channels, stack // len(orderings), width), len(orderings[0])
        features, rows, columns = pooled_shape(piece_shape, blocks)
        joined_grid = grid if join_pieces else (1, 1)
        self.encoder = JoinedPieces(encoder_of_images(piece_shape, joined_grid, blocks), orderings, joined_grid)
        self.flatten = None
        self.dropout = Dropout(dropout)
        num_inputs = len(orderings) * features * rows * columns
        self.recurrent = make_recurrent(recurrent, [num_inputs], lstm_units, num_steps)
        self.last_step = LastStep(getattr(self.recurrent, "bidirectional", False))
        self.dropout2 = Dropout(dropout)
        self.head = nn.Linear(num_outputs(self.recurrent, [num_inputs], num_steps), num_classes)
        self.apply(initialize_as_keras)

    def classify(self, outputs: Float[Tensor, "... units"]) -> Float[Tensor, "... classes"]:
        return self.head(self.dropout2(outputs))

    def in_full(self) -> "DeepCNNLSTM":
        network = copy.deepcopy(self)
        encoder = cast(JoinedPieces, network.encoder)
        in_full = JoinedPieces(encoder.module, encoder.orderings, encoder.joined_grid, once=False)
        network.encoder = in_full.to(encoder.image_places.device)
        return network

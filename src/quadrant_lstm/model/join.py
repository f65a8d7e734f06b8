"""Joins any encoder to any recurrent layer, and classifies what the layer returns after the last step.

    [N, T, C, H, W] -> encoder at every step -> [N, T, ...] -> dropout -> recurrent layer -> [N, T, units]
                    -> last step -> [N, units] -> dense -> head -> [N, classes]

`encoder` is called with the number of channels of a frame. `recurrent` is called with the number of features of a step
and a number of units, and returns outputs and a state. If its first argument is called `in_channels`, as that of
nn.Conv2d, it is called with the number of channels, and reads maps, whose means over all positions are classified.
"""

import copy
import logging
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.data.orderings import Shape
from quadrant_lstm.kinds import Orderings
from quadrant_lstm.model.dropout import Dropout
from quadrant_lstm.model.encoder import ConvEncoder, PaddedEncoder
from quadrant_lstm.model.initialization import initialize_as_keras
from quadrant_lstm.model.padded_rnn import PaddedRNN
from quadrant_lstm.model.parts import MakePart, make_part, wrong_result
from quadrant_lstm.model.recurrent import FlattenMaps, LastStep, make_recurrent, num_outputs, reads_maps
from quadrant_lstm.model.shared_tiles import SharedTiles
from quadrant_lstm.model.step_classifier import StepClassifier
from quadrant_lstm.model.tile_plan import CannotShare
from quadrant_lstm.model.time_distributed import TimeDistributed, in_eval_mode

log = logging.getLogger(__name__)


class Join(StepClassifier):
    """`frame_shape` (channels, height, width), `num_classes`, `num_steps` and `orderings` come from the data;
    conf/model/join.yaml explains the other arguments. Clips have no orderings. With `shared_tiles` and orderings,
    frames must be those of `sequences(images, orderings)`; use `in_full()` for any others.
    """

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        num_steps: int,
        orderings: Orderings | None,
        encoder: MakePart,
        recurrent: MakePart,
        dropout: float,
        lstm_units: int,
        dense_units: int,
        shared_tiles: bool,
    ):
        super().__init__()
        made = make_part("model.encoder", encoder, {"the number of channels": frame_shape[0]})
        self.encoder = encoder_per_step(made, orderings, frame_shape, shared_tiles)
        shape = feature_shape(made, frame_shape)
        self.flatten = FlattenMaps() if len(shape) == 3 and not reads_maps(recurrent) else None
        self.dropout = Dropout(dropout)
        self.recurrent = make_recurrent(recurrent, shape, lstm_units, num_steps)
        if self.flatten and isinstance(self.recurrent, PaddedRNN):
            self.recurrent.num_channels = shape[0]
        self.last_step = LastStep(getattr(self.recurrent, "bidirectional", False))
        inputs = [shape.numel()] if self.flatten else shape
        self.dense = nn.Linear(num_outputs(self.recurrent, inputs, num_steps), dense_units)  # no activation
        self.head = nn.Linear(dense_units, num_classes)
        ours = [self.encoder] if type(made) in (ConvEncoder, PaddedEncoder) else []  # others may be pretrained
        for part in (*ours, self.recurrent, self.dense, self.head):
            part.apply(initialize_as_keras)

    def classify(self, outputs: Float[Tensor, "... units"]) -> Float[Tensor, "... classes"]:
        return self.head(self.dense(outputs))

    def in_full(self) -> "Join":
        network = copy.deepcopy(self)
        network.encoder = TimeDistributed(cast(TimeDistributed, network.encoder).module)
        return network


def encoder_per_step(
    encoder: nn.Module, orderings: Orderings | None, frame_shape: Shape, shared_tiles: bool
) -> TimeDistributed:
    if shared_tiles and orderings:
        try:
            return SharedTiles(encoder, orderings, frame_shape[1] // len(orderings))
        except CannotShare as reason:
            log.info(f"model.shared_tiles: every frame is encoded in full: {reason}")
    return TimeDistributed(encoder)


@torch.no_grad()
def feature_shape(encoder: nn.Module, frame_shape: Shape) -> torch.Size:
    frames = torch.zeros(2, *frame_shape)
    with in_eval_mode(encoder):  # which changes no running statistics
        features = encoder(frames)
    fits = isinstance(features, Tensor) and features.ndim > 1 and len(features) == len(frames)
    if not fits or not features.is_floating_point():
        rule = "floats: maps [N, channels, height, width] or vectors [N, features]"
        raise wrong_result("model.encoder", encoder, frames, features, rule)
    return features.shape[1:]

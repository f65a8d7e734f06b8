"""Defines the network of the question, which maps a sequence of frames to logits, and what it is made of.

Shapes for N samples of four steps, with the values of conf/model/cnn_lstm.yaml:

    [N, 4, 1, 56, 14] -> conv encoder at every step -> [N, 4, 32, 26, 5] -> flatten -> [N, 4, 4160] -> dropout
                      -> LSTM -> [N, 4, 5] -> last step -> [N, 5] -> dense -> [N, 50] -> head -> [N, 10]
"""

import logging
from collections import OrderedDict
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout

from quadrant_lstm.data.orderings import Shape
from quadrant_lstm.kinds import BelowOne, Count, Counts, Orderings
from quadrant_lstm.model.encoder import INITIALIZED, Conv1dEncoder, ConvEncoder, Standardize, check_axes, encoded_shape
from quadrant_lstm.model.protocols import Frames, MakePart, make_part, wrong_result
from quadrant_lstm.model.recurrent import StepClassifier, initialize_as_keras
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.model.shared_tiles import CannotShare, SharedTiles
from quadrant_lstm.model.time_distributed import TimeDistributed, in_eval_mode

# Dropout with as few random bits as its probability needs
#
# On a CPU, torch's own dropout draws one random number per element, in a single thread.


class Dropout(nn.Dropout):
    """nn.Dropout, except that on a CPU p is rounded to n / 256, with n from 1 to 255, and the scale accordingly."""

    def forward(self, inputs: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if not self.training or self.p == 0:
            return inputs
        if inputs.device.type != "cpu":
            return dropout(inputs, self.p)
        return inputs * scaled_mask(inputs, min(max(round(256 * self.p), 1), 255))


def scaled_mask(like: Float[Tensor, "..."], dropped: int) -> Float[Tensor, "..."]:
    """Returns 0 with a probability of `dropped` / 256 and 256 / (256 - dropped) otherwise, in the shape of `like`."""
    bits = 8 * like.element_size()
    dtype = getattr(torch, f"int{bits}")
    words = kept_bits(-(-like.numel() // bits), 256 - dropped, dtype)
    # Each bit becomes one element: shift it to the sign, spread it over the word, AND it with the bits of the scale.
    scale = torch.tensor(256 / (256 - dropped), dtype=like.dtype).view(dtype)
    shifts = torch.arange(bits, dtype=dtype).view(-1, 1)
    spread_bits = words.bitwise_left_shift(shifts).bitwise_right_shift_(bits - 1).bitwise_and_(scale)
    return spread_bits.flatten()[: like.numel()].view(like.dtype).view(like.shape)


def kept_bits(num_words: int, kept: int, dtype: torch.dtype) -> Int[Tensor, " words"]:
    """Returns words whose bits are set independently, each with a probability of kept / 256.

    The binary digits of the probability are processed from the last to the first. Each takes one random bit, which is
    and-ed to the result for a digit 0 and or-ed to it for a digit 1: this halves the probability and adds 0 or 1/2.
    """
    digits = f"{kept:08b}".rstrip("0")
    size = torch.iinfo(dtype).bits // 8
    draws = torch.empty(len(digits), -(-num_words * size // 8), dtype=torch.int64).random_(-(2**63), None)
    words = draws[0]
    for digit, draw in zip(digits[-2::-1], draws[1:], strict=True):
        words = words | draw if digit == "1" else words & draw
    return words.view(dtype)[:num_words]


# Any encoder, joined to any recurrent layer
#
#     [N, T, C, H, W] -> encoder at every step -> [N, T, ...] -> perhaps differences from the step before -> dropout
#                     -> recurrent layer -> [N, T, units] -> last step -> [N, units] -> dense -> head -> [N, classes]
#
# `encoder` is called with the number of channels of a frame, or of features of a series. `recurrent` is called with the
# number of features of a step and a number of units, and returns outputs and a state. If its class says `reads_maps =
# True`, it is called with the number of channels instead, and reads maps; the means of its outputs over all positions
# are classified.


log = logging.getLogger(__name__)


class Join(StepClassifier):
    """`frame_shape`, `num_classes`, `num_steps` and `orderings` come from the data; conf/model/join.yaml explains the
    other arguments. Clips and series have no orderings. Series are standardized before the encoder. With `shared_tiles`
    and orderings, frames must be those of `sequences(images, orderings)`; use `in_full()` for any others. Raises
    UserError for an encoder of other frames, and if a kernel or the pool of a ConvEncoder is larger than its input.
    """

    group_of_sizes = "model.encoder"

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        num_steps: int,
        orderings: Orderings | None,
        encoder: MakePart,
        recurrent: MakePart,
        dropout: BelowOne,
        lstm_units: Count,
        dense_units: Count,
        shared_tiles: bool,
        differences: bool,
    ):
        super().__init__()
        module = make_part("model.encoder", encoder, frame_shape[0])
        is_ours = type(module) in INITIALIZED  # others may be pretrained
        check_axes(self.group_of_sizes, module, frame_shape)
        if isinstance(module, ConvEncoder | Conv1dEncoder):
            encoded_shape(module, frame_shape, self.group_of_sizes)  # checks them
        if len(frame_shape) < 3:
            module = nn.Sequential(OrderedDict(standardize=Standardize(frame_shape), encoder=module))
        self.encoder = TimeDistributed(module)
        if shared_tiles and orderings:
            try:
                self.encoder = SharedTiles(module, orderings, frame_shape[1] // len(orderings))
                self.needs_orderings = True
            except CannotShare as reason:
                log.info(f"model.shared_tiles: every frame is encoded in full: {reason}")
        self.dropout = Dropout(dropout)
        num_outputs = self.read_with(recurrent, feature_shape(module, frame_shape), lstm_units, num_steps, differences)
        self.dense = nn.Linear(num_outputs, dense_units)  # no activation
        self.head = nn.Linear(dense_units, num_classes)
        for part in (*[self.encoder] * is_ours, self.recurrent, self.dense, self.head):
            part.apply(initialize_as_keras)

    def classify(self, outputs: Float[Tensor, "... units"]) -> Float[Tensor, "... classes"]:
        return self.head(self.dense(outputs))


@torch.no_grad()
def feature_shape(encoder: nn.Module, frame_shape: Shape) -> torch.Size:
    frames = torch.zeros(2, *frame_shape)
    with in_eval_mode(encoder):  # which changes no running statistics
        match features := encoder(frames):
            case Tensor() if features.ndim > 1 and len(features) == 2 and features.is_floating_point():
                return features.shape[1:]
    rule = "floats: maps [N, channels, height, width] or vectors [N, features]"
    raise wrong_result("model.encoder", encoder, frames, features, rule)


# The network of the question


class CNNLSTM(Join):
    """Encodes every frame with convs, feeds the features to a recurrent layer, and classifies its last output.

    conf/model/cnn_lstm.yaml explains the arguments that Join does not have.
    """

    group_of_sizes = "model"

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        num_steps: int,
        orderings: Orderings | None,
        filters: Counts,
        kernel_size: Count,
        pool_size: Count,
        recurrent: MakePart,
        dropout: BelowOne,
        lstm_units: Count,
        dense_units: Count,
        shared_tiles: bool,
    ):
        encoder = partial(ConvEncoder, filters=filters, kernel_size=kernel_size, pool_size=pool_size)
        parts = (encoder, recurrent, dropout, lstm_units, dense_units, shared_tiles)
        super().__init__(frame_shape, num_classes, num_steps, orderings, *parts, differences=False)


# What a Reshape between convolutions and an LSTM gives, the first thing that the question tried
#
# A 2-D convolution has no step axis, so the steps are its channels. A reshape then makes a sequence of the maps, whose
# rows are the steps. Shapes for N samples of four steps, with the values of conf/model/reshaped.yaml:
#
#     [N, 4, 1, 56, 14] -> [N, 4, 56, 14] -> conv encoder -> [N, 32, 26, 5] -> [N, 26, 160] -> LSTM -> [N, 5] -> [N, 10]
#
# It works, but the steps are lost: each convolution sums over all of them, and the LSTM reads the rows of the frames
# from top to bottom, that is the four orderings one after another, each of them at all steps at once.


class Reshaped(nn.Module):
    """`frame_shape` (channels, height, width), `num_classes` and `num_steps` come from the data. Raises UserError
    if a kernel or the pool is larger than its input.
    """

    frame_axes = 3

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        num_steps: int,
        filters: Counts,
        kernel_size: Count,
        pool_size: Count,
        dropout: BelowOne,
        lstm_units: Count,
        dense_units: Count,
    ):
        super().__init__()
        check_axes("model", self, frame_shape)
        channels, height, width = frame_shape
        self.encoder = ConvEncoder(num_steps * channels, filters, kernel_size, pool_size)
        features, _, columns = encoded_shape(self.encoder, (num_steps * channels, height, width), "model")
        self.dropout = Dropout(dropout)
        self.recurrent = LSTM(features * columns, lstm_units)
        self.dense = nn.Linear(lstm_units, dense_units)
        self.head = nn.Linear(dense_units, num_classes)
        self.apply(initialize_as_keras)

    def forward(self, frames: Frames) -> Float[Tensor, "batch classes"]:
        maps = self.encoder(frames.flatten(1, 2))
        outputs, _ = self.recurrent(self.dropout(maps.transpose(1, 2).flatten(2)))
        return self.head(self.dense(outputs[:, -1]))

"""Builds a recurrent layer of a chosen size, and the base of networks that read features with it."""

import bisect
import copy
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from quadrant_lstm.errors import UserError
from quadrant_lstm.model import protocols
from quadrant_lstm.model.conv_lstm import ConvLSTM
from quadrant_lstm.model.protocols import Frames, Lengths, MakePart, Outputs, Sequences, as_argument, count_parameters
from quadrant_lstm.model.rnn import LSTM, PaddedRNN
from quadrant_lstm.model.time_distributed import in_eval_mode

# Initial parameters, as in Keras
#
# Weights have Glorot's uniform distribution, recurrent weights are orthogonal, biases are 0 and that of an LSTM's
# forget gate is 1. PyTorch draws the weights of an LSTM between +-1 / sqrt(units), whatever the number of inputs: with
# thousands of inputs, as here, the gates are saturated before training begins.


def initialize_as_keras(layer: nn.Module) -> None:
    """Use with nn.Module.apply. Layers other than convs, linear and recurrent ones are not changed."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear | nn.RNNBase | ConvLSTM):
        for name, parameter in layer.named_parameters(recurse=False):
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
                if isinstance(layer, nn.LSTM | ConvLSTM) and not name.startswith("bias_hh"):
                    nn.init.ones_(parameter.chunk(4)[1])
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)


# Recurrent layers: their size, what they read, and which outputs are classified


class FlattenMaps(nn.Module):
    """Flattens maps with channels last. Copies nothing if they are channels last in memory."""

    def forward(
        self, maps: Float[Tensor, "batch steps features rows columns"]
    ) -> Float[Tensor, "batch steps rows*columns*features"]:
        return maps.permute(0, 1, 3, 4, 2).flatten(2)


def reads_maps(make: MakePart) -> bool:
    """Tells whether the layer reads maps, as its class says with `reads_maps = True`."""
    return getattr(getattr(make, "func", make), "reads_maps", False)  # `func` of a functools.partial


def make_recurrent(make: MakePart, feature_shape: Sequence[int], lstm_units: int, num_steps: int) -> nn.Module:
    """Returns the layer. A functools.partial with a keyword `units` that is not None gets exactly so many units. Any
    other layer has about as many parameters as an LSTM of `lstm_units` units over the same features.

    Features are vectors, or maps [channels, rows, columns], which FlattenMaps flattens for a layer that reads vectors.
    """
    kind: Any = getattr(make, "func", make)
    options = dict(getattr(make, "keywords", {}))
    units = options.pop("units", None)  # a key of the config, which the class need not know
    if reads_maps(make) and len(feature_shape) != 3:
        raise UserError(f"model.recurrent: {kind.__name__} reads maps, but the encoder returns a vector; change one.")
    input_size = feature_shape[0] if reads_maps(make) else math.prod(feature_shape)
    if getattr(kind, "reads_all_steps", False):
        options["num_steps"] = num_steps
    if len(feature_shape) == 3 and isinstance(kind, type) and issubclass(kind, PaddedRNN):
        options["num_channels"] = feature_shape[0]
    make_layer = functools.partial(protocols.make_part, "model.recurrent", kind, input_size, **options)
    layer = make_layer(units_like(make_layer, math.prod(feature_shape), lstm_units) if units is None else units)
    if isinstance(layer, nn.RNNBase) and not layer.batch_first:
        raise UserError("model.recurrent.batch_first: false, which reads samples as steps; write true.")
    return layer


def units_like(make_layer: Callable[[int], nn.Module], num_features: int, lstm_units: int) -> int:
    """Returns the number of units with which a layer has about as many parameters as an LSTM of `lstm_units` units."""
    with torch.device("meta"):
        wanted = count_parameters(LSTM(num_features, lstm_units))

        @functools.cache
        def surplus(units: int) -> int:
            """Returns how many parameters more than wanted a layer has; more units have more parameters."""
            return count_parameters(make_layer(units)) - wanted

        if surplus(2) <= surplus(1):
            rule = "a layer of two units has no more parameters than one of one"
            raise UserError(f"model.recurrent: {rule}; add model.recurrent.units=NUMBER, the class's second argument.")
        most = 1
        while surplus(most) < 0:
            most *= 2
        larger = bisect.bisect_left(range(most), 0, lo=max(1, most // 2), key=surplus)
        return min(larger, max(1, larger - 1), key=lambda units: abs(surplus(units)))


@torch.no_grad()
def examine_outputs(recurrent: nn.Module, feature_shape: Sequence[int], num_steps: int) -> tuple[int, bool]:
    """Returns the number of outputs of a step, whose features are maps or a vector; and whether an output before the
    last depends on the last step.
    """
    features = torch.rand(2, num_steps, *feature_shape, generator=torch.Generator().manual_seed(0))
    changed = features.clone()
    changed[:, -1] = features[:, -1].flip(0)  # of the other sample
    with in_eval_mode(recurrent):  # which changes no running statistics and draws no random numbers
        returned, others = recurrent(features), recurrent(changed)
    match returned:
        case Tensor(ndim=3 | 5) as outputs, _ if len(outputs) == len(features):
            same = torch.allclose(outputs[:, :-1], others[0][:, :-1], atol=1e-5, equal_nan=True)
            return outputs.shape[2], not same
    rule = "outputs [N, steps, units] and a state, which may be None"
    raise protocols.wrong_result("model.recurrent", recurrent, features, returned, rule)


def repeat_last_real(outputs: Outputs, lengths: Lengths) -> Outputs:
    """Replaces the outputs of padding by those of the last real step. A single output is that of the last step."""
    if lengths is None:
        return outputs
    places = torch.arange(outputs.shape[1], device=outputs.device).minimum(lengths[:, None] - 1)
    return outputs.gather(1, places[:, :, None].expand(-1, -1, outputs.shape[2]))


class LastStep(nn.Module):
    """Picks the output after the last real step. The half of a layer that reads backwards is picked at the first step,
    which it reads last.
    """

    def __init__(self, bidirectional: bool = False):
        super().__init__()
        self.bidirectional = bidirectional

    def forward(self, outputs: Outputs, lengths: Lengths = None) -> Float[Tensor, "batch units"]:
        last = repeat_last_real(outputs, lengths)[:, -1]
        if not self.bidirectional:
            return last
        num_units = outputs.shape[2] // 2
        return torch.cat([last[:, :num_units], outputs[:, 0, num_units:]], dim=1)


# Networks that encode every step, read the features in order and classify the result


Kept = Sequences | None
Pixels = Num[Tensor, "batch steps ..."]  # uint8 for a network of load_run, which scales it
Logits = Float[Tensor, "batch output_steps classes"]


class StepClassifier(nn.Module):
    """A network with these parts, which a subclass builds, and with its own `classify`. It maps frames to logits.

    `lengths` are the numbers of real steps of sequences that are padded at their ends: padding is not encoded, and the
    last step is the last real one. An encoder that shares computations between frames (SharedTiles, JoinedPieces) takes
    none.
    """

    encoder: Any  # one that needs the orderings has a method `in_full`, too, which returns one that does not
    differences: bool  # whether the features of a step are followed by their differences from the step before
    flatten: nn.Module | None
    dropout: nn.Module
    recurrent: nn.Module
    last_step: LastStep
    reads_ahead: bool  # whether the recurrent layer has outputs that depend on later steps
    needs_orderings = False  # whether frames have to follow data.orderings

    def read_with(
        self, make: MakePart, feature_shape: Sequence[int], lstm_units: int, num_steps: int, differences: bool = False
    ) -> int:
        """Adds a recurrent layer that reads features of this shape, and returns the number of its outputs."""
        self.differences = differences
        if differences:
            feature_shape = (2 * feature_shape[0], *feature_shape[1:])
        is_flattened = len(feature_shape) == 3 and not reads_maps(make)
        self.flatten = FlattenMaps() if is_flattened else None
        self.recurrent = make_recurrent(make, feature_shape, lstm_units, num_steps)
        self.last_step = LastStep(getattr(self.recurrent, "bidirectional", False))
        read_shape = [math.prod(feature_shape)] if is_flattened else feature_shape
        num_outputs, reads_ahead = examine_outputs(self.recurrent, read_shape, num_steps)
        self.reads_ahead = reads_ahead or self.last_step.bidirectional
        return num_outputs

    def in_full(self) -> "StepClassifier":
        network = copy.deepcopy(self)
        if self.needs_orderings:
            network.encoder, network.needs_orderings = network.encoder.in_full(), False
        return network

    def classify(self, outputs: Float[Tensor, "... units"]) -> Float[Tensor, "... classes"]:
        raise NotImplementedError

    def forward(
        self, frames: Frames, lengths: Lengths = None, encoded: Kept = None, per_step: bool = False
    ) -> Float[Tensor, "batch classes"] | Logits:
        """`encoded` are the features of the frames, where these are kept; then only the shape of `frames` matters."""
        if per_step:
            return self.classify(self.outputs_per_step(frames, lengths, encoded))
        return self.classify(self.last_step(self.all_outputs(frames, lengths, encoded), lengths))

    def logits_per_step(self, frames: Pixels, lengths: Lengths = None, encoded: Kept = None) -> Logits:
        return self(frames, lengths, encoded, per_step=True)  # a call, for the hook of load_run

    def outputs_per_step(self, frames: Frames, lengths: Lengths = None, encoded: Kept = None) -> Outputs:
        """A recurrent layer whose outputs depend on later steps, such as a bidirectional one, has one output, after the
        last step. The outputs of padding are those of the last real step.
        """
        outputs = self.all_outputs(frames, lengths, encoded)
        if self.reads_ahead:
            return self.last_step(outputs, lengths)[:, None]
        return repeat_last_real(outputs, lengths)

    def all_outputs(self, frames: Frames, lengths: Lengths, encoded: Kept) -> Outputs:
        outputs, _ = self.recurrent(self.features(frames, lengths, encoded), **as_argument(lengths))
        return outputs.mean((3, 4)) if outputs.ndim == 5 else outputs  # maps

    def features(self, frames: Frames, lengths: Lengths = None, encoded: Kept = None) -> Sequences:
        """Returns the inputs of the recurrent layer."""
        if encoded is None:
            mask = {} if lengths is None else {"mask": protocols.real_steps(frames, lengths)}
            encoded = self.encoder(frames, **mask)
        if self.differences:  # along the axis of features or channels; those of the first step are 0
            encoded = torch.cat([encoded, encoded.diff(dim=1, prepend=encoded[:, :1])], dim=2)
        return self.dropout(encoded if self.flatten is None else self.flatten(encoded))

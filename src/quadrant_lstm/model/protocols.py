"""Declares what a network may offer beyond the logits of its last step, for metrics and pictures."""

import copy
from typing import Protocol, cast, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.model.padding import Lengths, as_argument

Frames = Float[Tensor, "batch steps channels height width"]


@runtime_checkable
class LogitsPerStep(Protocol):
    def logits_per_step(self, frames: Frames, lengths: Lengths = None) -> Float[Tensor, "batch output_steps classes"]:
        """Returns the logits after every step, or after the last step only. The last are those of `forward`.

        `lengths` is given only if sequences are padded; the logits of padding are those of the last real step.
        """


def logits_after_steps(network: nn.Module, frames: Frames, lengths: Lengths = None) -> Tensor:
    """Returns the logits [batch, output_steps, classes] after every step, or after the last step only."""
    if isinstance(network, LogitsPerStep):
        return network.logits_per_step(frames, **as_argument(lengths))
    return network(frames, **as_argument(lengths))[:, None]


@runtime_checkable
class Inspectable(LogitsPerStep, Protocol):
    """A network with an encoder at every step and a recurrent layer, whose intermediate results can be shown."""

    encoder: nn.Module
    recurrent: nn.Module

    def features(self, frames: Frames) -> Float[Tensor, "batch steps features"]:
        """Returns the inputs of the recurrent layer."""

    def outputs_per_step(self, frames: Frames, lengths: Lengths = None) -> Float[Tensor, "batch output_steps units"]:
        """Returns the outputs of the recurrent layer, after every step or after the last step only."""

    def in_full(self) -> "Inspectable":
        """Returns a copy that encodes every frame separately and so accepts frames that do not follow the orderings."""


def in_full(network: nn.Module) -> nn.Module:
    """Returns a copy of the network that accepts any frames; one that is not Inspectable must accept them already."""
    return cast(nn.Module, network.in_full()) if isinstance(network, Inspectable) else copy.deepcopy(network)

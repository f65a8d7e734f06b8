"""What a network may offer beyond the logits of its last step. None of it is needed to train one."""

from typing import Protocol, cast, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.model.time_distributed import TimeDistributed

Frames = Float[Tensor, "batch steps channels height width"]


@runtime_checkable
class LogitsPerStep(Protocol):
    def logits_per_step(self, frames: Frames) -> Float[Tensor, "batch known classes"]:
        """The logits after each step; the last are those of `forward`. A network may have logits of the last only."""


@runtime_checkable
class Inspectable(LogitsPerStep, Protocol):
    """A network of an encoder at every step and a recurrent layer, whose inside can be shown."""

    encoder: TimeDistributed
    recurrent: nn.Module

    def features(self, frames: Frames) -> Float[Tensor, "batch steps features"]:
        """What the recurrent layer gets."""

    def outputs_per_step(self, frames: Frames) -> Float[Tensor, "batch known units"]:
        """What the recurrent layer gives."""

    def in_full(self) -> "Inspectable":
        """A copy that encodes every frame by itself, for frames that do not follow the orderings."""


def in_full(network: nn.Module) -> nn.Module:
    """The network as it encodes any frames."""
    return cast(nn.Module, network.in_full()) if isinstance(network, Inspectable) else network

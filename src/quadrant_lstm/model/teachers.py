"""Lets a network learn the probabilities of others besides the labels: knowledge distillation (Hinton et al. 2015,
arXiv 1503.02531).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import kl_div

from quadrant_lstm.model.protocols import Frames, Lengths, as_argument

Losses = Float[Tensor, " batch"]


class Teachers:
    """Trained networks. For each training step, torch's random numbers choose one of them.

    The divergence from a teacher is linear in the teacher's probabilities, up to a constant. So the expected gradient
    is that of the mean probabilities of all networks, at the cost of one.

    `weight` is the share of the teacher in the loss. `temperature` divides all logits: above 1, the network learns more
    of how the teacher ranks the classes that are wrong. `checksum` is that of the networks.
    """

    def __init__(self, networks: Sequence[nn.Module], weight: float, temperature: float, checksum: str):
        self.networks = [network.requires_grad_(False).eval() for network in networks]
        self.weight, self.temperature, self.checksum = weight, temperature, checksum

    def mixed(
        self, losses: Losses, logits: Float[Tensor, "batch classes"], frames: Frames, lengths: Lengths = None
    ) -> Losses:
        """Returns the mean of these losses, of the labels, and those of a teacher, by the weights of both."""
        teacher = self.networks[int(torch.randint(len(self.networks), ()))]
        dtype = torch.promote_types(logits.dtype, torch.float32)  # the square below multiplies what bf16 rounds
        known = (teacher(frames, **as_argument(lengths)).to(dtype) / self.temperature).log_softmax(1)
        learned = (logits.to(dtype) / self.temperature).log_softmax(1)
        divergences = kl_div(learned, known, reduction="none", log_target=True).sum(1)
        # times the square of the temperature, at any of which the gradients are then about as large
        return (1 - self.weight) * losses + self.weight * self.temperature**2 * divergences

"""Dropout with random numbers a byte each: on a CPU, torch's own draws a number at a time, in one thread."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout


class Dropout(nn.Dropout):
    """Like nn.Dropout, but on a CPU p is rounded to 1/256 (1 to 255 of them), and so is the scale."""

    def forward(self, inputs: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if not self.training or self.p == 0:
            return inputs
        if inputs.device.type != "cpu":
            return dropout(inputs, self.p)
        dropped = min(max(round(256 * self.p), 1), 255)
        words = torch.empty(-(-inputs.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: inputs.numel()].view(inputs.shape) >= dropped
        return inputs * (kept * inputs.new_tensor(256 / (256 - dropped)))

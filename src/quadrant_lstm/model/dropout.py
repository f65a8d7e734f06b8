"""Dropout with random numbers a byte each: on a CPU, torch's own draws a number at a time, in one thread."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout


class Dropout(nn.Dropout):
    """Like nn.Dropout, with p rounded to 1/256 on a CPU; what is kept is scaled by what that keeps."""

    def forward(self, inputs: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        dropped = round(256 * self.p)
        if not self.training or self.p == 0:
            return inputs
        if inputs.device.type != "cpu":
            return dropout(inputs, self.p)
        words = torch.empty(-(-inputs.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: inputs.numel()].view(inputs.shape) >= dropped
        return inputs * (kept * inputs.new_tensor(256 / (256 - dropped)))

"""Dropout with as few random bits as p needs: on a CPU, torch's own draws a number at a time, in one thread."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout

INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # of as many bytes as a float


class Dropout(nn.Dropout):
    """Like nn.Dropout, but on a CPU p is rounded to 1/256 (1 to 255 of them), and so is the scale."""

    def forward(self, inputs: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if not self.training or self.p == 0:
            return inputs
        if inputs.device.type != "cpu":
            return dropout(inputs, self.p)
        return inputs * mask(inputs, min(max(round(256 * self.p), 1), 255))


def mask(like: Float[Tensor, "..."], dropped: int) -> Float[Tensor, "..."]:
    """0 for `dropped` of 256 numbers, 256 / (256 - dropped) for the others."""
    dtype = INTEGER[like.element_size()]
    bits = 8 * like.element_size()
    words = kept_bits(-(-like.numel() // bits), 256 - dropped, dtype)
    # one number for each bit: move it to the sign, spread it over the word, keep of it what the scale's bits are
    scale = torch.tensor(256 / (256 - dropped), dtype=like.dtype).view(dtype)
    shifts = torch.arange(bits, dtype=dtype).view(-1, 1)
    spread = words.bitwise_left_shift(shifts).bitwise_right_shift_(bits - 1).bitwise_and_(scale)
    return spread.flatten()[: like.numel()].view(like.dtype).view(like.shape)


def kept_bits(num_words: int, kept: int, dtype: torch.dtype) -> Int[Tensor, " words"]:
    """Words whose every bit is set with a probability of kept / 256, and drawn for itself.

    From the last binary digit of the probability to the first, a random bit halves what stands behind it: it is
    and-ed to that for a 0, or-ed for a 1.
    """
    digits = f"{kept:08b}".rstrip("0")
    size = torch.iinfo(dtype).bits // 8
    draws = torch.empty(len(digits), -(-num_words * size // 8), dtype=torch.int64).random_(-(2**63), None)
    words = draws[0]
    for digit, draw in zip(digits[-2::-1], draws[1:], strict=True):
        words = words | draw if digit == "1" else words & draw
    return words.view(dtype)[:num_words]

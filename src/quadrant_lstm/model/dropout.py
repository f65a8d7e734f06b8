"""Applies dropout with as few random bits as its probability needs.

On a CPU, torch's own dropout draws one random number per element, in a single thread.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout

INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes per float -> integer type of the same size


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
    dtype = INTEGER[like.element_size()]
    bits = 8 * like.element_size()
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

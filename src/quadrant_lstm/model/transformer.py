"""Defines a small causal transformer, a recurrent layer whose state is what its attention has stored of earlier steps.

outputs, state = Transformer(32 * 26 * 5, 64)(maps, lengths=lengths)    # maps [N, T, 32, 26, 5]; outputs [N, T, 64]
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from quadrant_lstm.kinds import Count
from quadrant_lstm.model.protocols import check_lengths, real_steps


class TransformerState(NamedTuple):
    """What a later call needs of the steps so far, including padding."""

    keys: Float[Tensor, "layers batch heads steps size"]
    values: Float[Tensor, "layers batch heads steps size"]
    real: Bool[Tensor, "batch steps"]


class Block(nn.Module):
    """Attention to this step and earlier ones, then two linear layers. Each reads normalized inputs, and its result is
    added to the inputs before their normalization.
    """

    def __init__(self, num_units: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        width = num_heads * head_size(num_units, num_heads)
        self.norm1 = nn.LayerNorm(num_units)
        self.attention = nn.Linear(num_units, 3 * width)  # queries, keys and values
        self.project = nn.Linear(width, num_units)
        self.norm2 = nn.LayerNorm(num_units)
        self.expand = nn.Linear(num_units, 4 * num_units)
        self.contract = nn.Linear(4 * num_units, num_units)

    def forward(
        self, x: Tensor, mask: Bool[Tensor, "batch 1 steps all_steps"], keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the outputs, and the keys and values [batch, heads, all steps, size] of earlier and these steps."""
        split = self.attention(self.norm1(x)).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        keys, values = torch.cat([keys, split[1]], 2), torch.cat([values, split[2]], 2)
        attended = scaled_dot_product_attention(split[0], keys, values, attn_mask=mask)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        return x + self.contract(gelu(self.expand(self.norm2(x)))), keys, values


class Transformer(nn.Module):
    """The axes of an input after the steps are flattened. Positions are marked by sines (Vaswani et al. 2017,
    arXiv 1706.03762), so that sequences may have any number of steps; layers normalize first (Xiong et al. 2020,
    2002.04745).

    Queries, keys and values of a head have `num_units // num_heads` values, at least one; `num_heads` need not divide
    `num_units`.
    `lengths` and `state` are used as in LSTM, in rnn.py; the state is a TransformerState. Under autocast, the outputs
    keep the dtype of the inputs.
    """

    def __init__(self, input_size: int, num_units: int, num_layers: Count = 2, num_heads: Count = 4):
        super().__init__()
        self.num_units, self.num_heads = num_units, num_heads
        self.inputs = nn.Linear(input_size, num_units)
        self.blocks = nn.ModuleList(Block(num_units, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(num_units)

    def forward(
        self,
        inputs: Float[Tensor, "batch steps ..."],
        state: TransformerState | None = None,
        lengths: Int64[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch steps units"], TransformerState]:
        check_lengths(inputs, lengths)
        x = self.inputs(inputs.flatten(2)).to(inputs.dtype)
        batch, steps = x.shape[:2]
        if state is None:
            size = head_size(self.num_units, self.num_heads)
            nothing = x.new_zeros(len(self.blocks), batch, self.num_heads, 0, size)
            state = TransformerState(nothing, nothing, torch.ones(batch, 0, dtype=torch.bool, device=x.device))
        numbers = torch.arange(steps, device=x.device)
        now = real_steps(inputs, lengths)
        real = torch.cat([state.real, now], 1)
        x = x + sines(state.real.sum(1, keepdim=True) + numbers, self.num_units).to(x.dtype)
        mask = self.mask(real, steps)
        stored = []
        for block, keys, values in zip(self.blocks, state.keys, state.values, strict=True):
            x, keys, values = block(x, mask, keys, values)
            stored.append((keys, values))
        keys, values = (torch.stack(tensors) for tensors in zip(*stored, strict=True))
        return self.norm(x).to(x.dtype).masked_fill(~now[:, :, None], 0), TransformerState(keys, values, real)

    def mask(self, real: Bool[Tensor, "batch all_steps"], steps: int) -> Bool[Tensor, "batch 1 steps all_steps"]:
        """Tells which steps each of the last `steps` steps reads: real ones that are not later."""
        numbers = torch.arange(real.shape[1], device=real.device)
        not_later = numbers <= numbers[real.shape[1] - steps :, None]
        return (not_later & real[:, None])[:, None]


def head_size(num_units: int, num_heads: int) -> int:
    """Returns the size of the queries, keys and values of a head."""
    return max(1, num_units // num_heads)


def sines(positions: Int64[Tensor, "batch steps"], num_units: int) -> Float[Tensor, "batch steps units"]:
    """Returns sines and cosines of the positions, with wavelengths from 2 pi to 10,000 * 2 pi steps."""
    num_waves = -(-num_units // 2)
    waves = torch.arange(num_waves, device=positions.device)
    angles = positions[:, :, None] * torch.exp(waves * (-math.log(10_000) / num_waves))
    return torch.cat([angles.sin(), angles.cos()], dim=2)[:, :, :num_units]

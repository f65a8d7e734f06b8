"""Defines a small causal transformer, with which a recurrent layer can be compared.

outputs, _ = Transformer(32 * 26 * 5, 64)(maps, lengths=lengths)    # maps [N, T, 32, 26, 5]; outputs [N, T, 64]
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from quadrant_lstm.kinds import Count
from quadrant_lstm.model.protocols import Lengths, Sequences, real_steps


class Block(nn.Module):
    """Attention to this step and earlier ones, then two linear layers. Each reads normalized inputs, and its result is
    added to the inputs before their normalization.
    """

    def __init__(self, num_units: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        width = num_heads * max(1, num_units // num_heads)
        self.norm1 = nn.LayerNorm(num_units)
        self.attention = nn.Linear(num_units, 3 * width)  # queries, keys and values
        self.project = nn.Linear(width, num_units)
        self.norm2 = nn.LayerNorm(num_units)
        self.expand = nn.Linear(num_units, 4 * num_units)
        self.contract = nn.Linear(4 * num_units, num_units)

    def forward(self, x: Tensor, mask: Bool[Tensor, "batch 1 steps steps"]) -> Tensor:
        split = self.attention(self.norm1(x)).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = split
        attended = scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        return x + self.contract(gelu(self.expand(self.norm2(x))))


class Transformer(nn.Module):
    """The axes of an input after the steps are flattened. Positions are marked by sines (Vaswani et al. 2017,
    arXiv 1706.03762), so that sequences may have any number of steps; layers normalize first (Xiong et al. 2020,
    2002.04745).

    Queries, keys and values of a head have `num_units // num_heads` values, at least one. `lengths` are used as in
    LSTM, in rnn.py; there is no state. Under autocast, the outputs keep the dtype of the inputs.
    """

    def __init__(self, input_size: int, num_units: int, num_layers: Count = 2, num_heads: Count = 4):
        super().__init__()
        self.inputs = nn.Linear(input_size, num_units)
        self.blocks = nn.ModuleList(Block(num_units, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(num_units)

    def forward(self, inputs: Sequences, lengths: Lengths = None) -> tuple[Float[Tensor, "batch steps units"], None]:
        x = self.inputs(inputs.flatten(2)).to(inputs.dtype)
        numbers, real = torch.arange(x.shape[1], device=x.device), real_steps(inputs, lengths)
        # of 2 pi to 10,000 * 2 pi steps; bf16, the default type of trainer.precision=bf16-true, would round the angles
        waves = torch.arange(-(-x.shape[2] // 2), device=x.device, dtype=torch.float32)
        angles = numbers[:, None].float() * torch.exp(waves * (-math.log(10_000) / len(waves)))
        x = x + torch.cat([angles.sin(), angles.cos()], dim=1)[:, : x.shape[2]].to(x.dtype)
        mask = ((numbers <= numbers[:, None]) & real[:, None])[:, None]  # real steps that are not later
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x).to(x.dtype).masked_fill(~real[:, :, None], 0), None

"""Feature maps of every step -> the LSTM's output at every step.

The maps come channels last, as the convs leave them, while the LSTM's weights are kept in the order that flattening
[features, rows, columns] gives, which is Keras's and PyTorch's. It is cheaper to reorder 20 x 4160 weights a batch than
all its features.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear


class FlattenMaps(nn.Module):
    """No copy where the maps are channels last in memory."""

    def forward(
        self, maps: Float[Tensor, "batch steps features rows columns"]
    ) -> Float[Tensor, "batch steps rows*columns*features"]:
        return maps.permute(0, 1, 3, 4, 2).flatten(2)


class MapsLSTM(nn.LSTM):
    """An LSTM of one layer over flattened maps; the parameters of nn.LSTM under their names.

    Few steps and few units: an unrolled cell is faster than the library's layer, which splits its work for long ones.
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, num_features: int, num_positions: int, num_units: int):
        super().__init__(num_features * num_positions, num_units, batch_first=True)
        self.num_features = num_features

    def forward(  # type: ignore[override]
        self, maps: Float[Tensor, "batch steps flat"]
    ) -> Float[Tensor, "batch steps units"]:
        weight = self.weight_ih_l0.unflatten(1, (self.num_features, -1)).transpose(1, 2).flatten(1)
        gates = linear(maps, weight, self.bias_ih_l0 + self.bias_hh_l0)
        gates = gates.to(self.weight_hh_l0.dtype)  # autocast leaves them in bf16
        cell: Tensor | None = None  # before the first step, where the hidden state is zero too
        outputs: list[Tensor] = []
        for step in gates.unbind(1):
            if outputs:
                step = step + outputs[-1] @ self.weight_hh_l0.T
            into, keep, new, out = step.chunk(4, dim=1)  # Keras's and PyTorch's order of the gates
            added = into.sigmoid() * new.tanh()
            cell = added if cell is None else keep.sigmoid() * cell + added
            outputs.append(out.sigmoid() * cell.tanh())
        return torch.stack(outputs, dim=1)


class LastStep(nn.Module):
    def forward(self, outputs: Float[Tensor, "batch steps units"]) -> Float[Tensor, "batch units"]:
        return outputs[:, -1]

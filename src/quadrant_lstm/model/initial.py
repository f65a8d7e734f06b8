"""A layer -> its weights as Keras draws them: Glorot's uniform numbers, in a recurrence an orthogonal matrix, biases 0,
that of the forget gate 1.

PyTorch draws those of an LSTM between +-1 / sqrt(units), however many inputs it has: from thousands, as here, its gates
get numbers so large that they stand open or shut before anything is learned.
"""

from torch import nn


def draw_as_keras(layer: nn.Module) -> None:
    """For nn.Module.apply; layers of other kinds stay as they are."""
    if isinstance(layer, nn.Conv2d | nn.Linear | nn.RNNBase):
        for name, parameter in layer.named_parameters(recurse=False):
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)
    if isinstance(layer, nn.LSTM):
        _, forget, *_ = layer.get_parameter("bias_ih_l0").chunk(4)
        nn.init.ones_(forget)

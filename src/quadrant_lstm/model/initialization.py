"""Initializes the parameters of a layer as Keras does.

Weights have Glorot's uniform distribution, recurrent weights are orthogonal, biases are 0 and that of an LSTM's forget
gate is 1. PyTorch draws the weights of an LSTM between +-1 / sqrt(units), whatever the number of inputs: with thousands
of inputs, as here, the gates are saturated before training begins.
"""

from torch import nn


def initialize_as_keras(layer: nn.Module) -> None:
    """Use with nn.Module.apply. Layers other than convs, linear and recurrent ones are not changed."""
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

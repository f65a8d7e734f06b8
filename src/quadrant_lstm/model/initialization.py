"""Initializes the parameters of a layer as Keras does.

Weights have Glorot's uniform distribution, recurrent weights are orthogonal, biases are 0 and that of an LSTM's forget
gate is 1. PyTorch draws the weights of an LSTM between +-1 / sqrt(units), whatever the number of inputs: with thousands
of inputs, as here, the gates are saturated before training begins.
"""

from torch import nn

from quadrant_lstm.model.conv_lstm import ConvLSTM


def initialize_as_keras(layer: nn.Module) -> None:
    """Use with nn.Module.apply. Layers other than convs, linear and recurrent ones are not changed."""
    if isinstance(layer, nn.Conv2d | nn.Linear | nn.RNNBase | ConvLSTM):
        for name, parameter in layer.named_parameters(recurse=False):
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
                if isinstance(layer, nn.LSTM | ConvLSTM) and not name.startswith("bias_hh"):
                    nn.init.ones_(parameter.chunk(4)[1])
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)

"""Builds the network of the question in Keras 3, as its author wrote it, and copies weights in both directions.

Keras has convolutions [rows, columns, in, out], matrices [in, out], and one LSTM bias where PyTorch adds two. With the
channels last, it also flattens maps in another order than PyTorch. Imports Keras, which an extra installs.
"""

import os
from typing import Any

import torch
from torch import Tensor

from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.run.inputs import Inputs
from quadrant_lstm.run.keras_sizes import KerasSizes, conv_layers, ends_in_softmax, has_channels_first, inner_layers

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
from keras import layers


def build_keras_model(
    sizes: KerasSizes,
    spec: SequenceSpec,
    data_format: str = "channels_last",
    activation: str | None = None,
) -> keras.Model:
    """Frames are [steps, height, width, channels], or [steps, channels, height, width] if channels are first."""
    channels, height, width = spec.frame_shape
    shape = (channels, height, width) if data_format == "channels_first" else (height, width, channels)
    convs = [layers.Conv2D(n, sizes.kernel_size, activation="relu", data_format=data_format) for n in sizes.filters]
    pool = layers.MaxPooling2D(sizes.pool_size, data_format=data_format)
    encoder = [*convs, pool, layers.Flatten(data_format="channels_last")]  # which keeps the order of the axes
    return keras.Sequential(
        [
            keras.Input((spec.num_steps, *shape)),
            *map(layers.TimeDistributed, encoder),
            layers.Dropout(sizes.dropout),
            layers.LSTM(sizes.lstm_units),
            layers.Dense(sizes.dense_units),
            layers.Dense(spec.num_classes, activation=activation),
        ]
    )


def copy_to_keras(network: Any, model: keras.Model) -> None:
    state = dict(network.state_dict())
    weights = []
    for name, conv in network.encoder.module.named_children():
        if isinstance(conv, torch.nn.Conv2d):
            weights += [
                state[f"encoder.module.{name}.weight"].permute(2, 3, 1, 0),
                state[f"encoder.module.{name}.bias"],
            ]
    input_weight = state["recurrent.weight_ih_l0"]
    if reads_channels_last(model):
        input_weight = input_weight.unflatten(1, (conv_layers(model)[-1].filters, -1)).transpose(1, 2).flatten(1)
    weights += [
        input_weight.T,
        state["recurrent.weight_hh_l0"].T,
        state["recurrent.bias_ih_l0"] + state["recurrent.bias_hh_l0"],
    ]
    for name in ("dense", "head"):
        weights += [state[f"{name}.weight"].T, state[f"{name}.bias"]]
    model.set_weights([weight.cpu().numpy() for weight in weights])


def state_of_keras(model: keras.Model) -> dict[str, Tensor]:
    """Returns the state dict of the same CNNLSTM."""
    weights = iter([torch.tensor(weight) for weight in model.get_weights()])
    state = {}
    for number, _ in enumerate(conv_layers(model), start=1):
        state[f"encoder.module.conv{number}.weight"] = next(weights).permute(3, 2, 0, 1)
        state[f"encoder.module.conv{number}.bias"] = next(weights)
    input_weight = next(weights).T
    if reads_channels_last(model):
        input_weight = input_weight.unflatten(1, (-1, conv_layers(model)[-1].filters)).transpose(1, 2).flatten(1)
    state |= {"recurrent.weight_ih_l0": input_weight, "recurrent.weight_hh_l0": next(weights).T}
    bias = next(weights)
    state |= {"recurrent.bias_ih_l0": bias, "recurrent.bias_hh_l0": torch.zeros_like(bias)}
    for name in ("dense", "head"):
        state |= {f"{name}.weight": next(weights).T, f"{name}.bias": next(weights)}
    return {name: weight.contiguous() for name, weight in state.items()}


def reads_channels_last(model: keras.Model) -> bool:
    """Tells whether the LSTM reads maps that were flattened with their channels last."""
    formats = [layer.data_format for layer in inner_layers(model) if isinstance(layer, layers.Flatten)]
    return not has_channels_first(model) or formats == ["channels_first"]


@torch.no_grad()
def largest_difference(model: keras.Model, network: torch.nn.Module, inputs: Inputs) -> float:
    """Returns the largest difference between the outputs of the models, for random inputs."""
    frames = inputs.to_frames(torch.rand(2, *inputs.shape))
    outputs = keras.ops.convert_to_numpy(model((frames if has_channels_first(model) else frames.movedim(2, 4)).numpy()))
    found = network(frames)
    if ends_in_softmax(model):
        found = found.softmax(1)
    return (found - torch.from_numpy(outputs)).abs().max().item()

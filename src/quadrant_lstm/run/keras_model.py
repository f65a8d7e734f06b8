"""Builds the network of the question in Keras 3, as its author wrote it, and copies weights in both directions.

Keras has convolutions [rows, columns, in, out], matrices [in, out], and one LSTM bias where PyTorch adds two. With the
channels last, it also flattens maps in another order than PyTorch. Imports Keras, which an extra installs.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quadrant_lstm.data.frames import STEPS, Shape
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.network import CNNLSTM
from quadrant_lstm.model.rnn import LSTM

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
from keras import layers

KINDS = "Conv2D, ..., MaxPooling2D, Flatten, Dropout, LSTM, Dense, Dense"


class Sizes(NamedTuple):
    """The keys of conf/model/cnn_lstm.yaml; the defaults are the question's values."""

    filters: Sequence[int] = (32, 32)
    kernel_size: int = 3
    pool_size: int = 2
    dropout: float = 0.25
    lstm_units: int = 5
    dense_units: int = 50


def build_keras_model(
    sizes: Sizes,
    frame_shape: Shape,
    num_classes: int,
    data_format: str = "channels_last",
    activation: str | None = None,
) -> keras.Model:
    """Frames are [4, height, width, channels], or [4, channels, height, width] for data_format="channels_first"."""
    channels, height, width = frame_shape
    shape = (channels, height, width) if data_format == "channels_first" else (height, width, channels)
    convs = [layers.Conv2D(n, sizes.kernel_size, activation="relu", data_format=data_format) for n in sizes.filters]
    pool = layers.MaxPooling2D(sizes.pool_size, data_format=data_format)
    encoder = [*convs, pool, layers.Flatten(data_format="channels_last")]  # which keeps the order of the axes
    return keras.Sequential(
        [
            keras.Input((STEPS, *shape)),
            *map(layers.TimeDistributed, encoder),
            layers.Dropout(sizes.dropout),
            layers.LSTM(sizes.lstm_units),
            layers.Dense(sizes.dense_units),
            layers.Dense(num_classes, activation=activation),
        ]
    )


def sizes_of_network(network: Any) -> Sizes:
    """Raises UserError if Keras has no such network here."""
    recurrent: Any = getattr(network, "recurrent", None)
    plain = type(network) is CNNLSTM and type(recurrent) is LSTM
    if not plain or recurrent.num_layers > 1 or recurrent.bidirectional:
        raise UserError("format=keras: writes model=cnn_lstm with one LSTM layer in one direction; use format=onnx.")
    convs = [layer for layer in network.encoder.module if isinstance(layer, torch.nn.Conv2d)]
    return Sizes(
        [conv.out_channels for conv in convs], convs[0].kernel_size[0], network.encoder.module.pool.kernel_size,
        network.dropout.p, recurrent.hidden_size, network.dense.out_features,
    )  # fmt: skip


def copy_to_keras(network: Any, model: keras.Model) -> None:
    state = dict(network.state_dict())
    weights = []
    for name, conv in network.encoder.module.named_children():
        if isinstance(conv, torch.nn.Conv2d):
            weights += [
                state[f"encoder.module.{name}.weight"].permute(2, 3, 1, 0),
                state[f"encoder.module.{name}.bias"],
            ]
    read = state["recurrent.weight_ih_l0"]
    if reads_channels_last(model):
        read = read.unflatten(1, (conv_layers(model)[-1].filters, -1)).transpose(1, 2).flatten(1)
    weights += [
        read.T,
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
    read = next(weights).T
    if reads_channels_last(model):
        read = read.unflatten(1, (-1, conv_layers(model)[-1].filters)).transpose(1, 2).flatten(1)
    state |= {"recurrent.weight_ih_l0": read, "recurrent.weight_hh_l0": next(weights).T}
    bias = next(weights)
    state |= {"recurrent.bias_ih_l0": bias, "recurrent.bias_hh_l0": torch.zeros_like(bias)}
    for name in ("dense", "head"):
        state |= {f"{name}.weight": next(weights).T, f"{name}.bias": next(weights)}
    return {name: weight.contiguous() for name, weight in state.items()}


def inner_layers(model: keras.Model) -> list[Any]:
    """Returns the layers inside TimeDistributed, then the others."""
    return [layer.layer if isinstance(layer, layers.TimeDistributed) else layer for layer in model.layers]


def conv_layers(model: keras.Model) -> list[Any]:
    return [layer for layer in inner_layers(model) if isinstance(layer, layers.Conv2D)]


def reads_channels_last(model: keras.Model) -> bool:
    """Tells whether the LSTM reads maps that were flattened with their channels last."""
    (flatten,) = (layer for layer in inner_layers(model) if isinstance(layer, layers.Flatten))
    return conv_layers(model)[0].data_format == "channels_last" or flatten.data_format == "channels_first"


def sizes_of_keras(model: keras.Model) -> tuple[Sizes, Shape, int]:
    """Returns the sizes, the shape of a frame and the number of classes. Raises UserError for another network."""
    found = [layer for layer in inner_layers(model) if not isinstance(layer, layers.InputLayer)]
    convs, rest = conv_layers(model), [layer for layer in found if not isinstance(layer, layers.Conv2D)]
    kinds = [layers.MaxPooling2D, layers.Flatten, layers.Dropout, layers.LSTM, layers.Dense, layers.Dense]
    names = ", ".join(type(layer).__name__ for layer in found)
    if not convs or found[: len(convs)] != convs or [type(layer) for layer in rest] != kinds:
        raise UserError(f"the model has the layers {names}; they must be {KINDS}.")
    check_settings(convs, *rest)
    pool, _, dropout, lstm, dense, head = rest
    _, steps, *shape = model.input_shape
    if steps != STEPS or len(shape) != 3:
        raise UserError(f"the model reads {list(model.input_shape)}; it must be [batch, {STEPS}, ...] with frames.")
    frame_shape = shape if convs[0].data_format == "channels_first" else [shape[2], *shape[:2]]
    filters = [conv.filters for conv in convs]
    sizes = Sizes(filters, convs[0].kernel_size[0], pool.pool_size[0], dropout.rate, lstm.units, dense.units)
    return sizes, frame_shape, head.units


def check_settings(
    convs: Sequence[Any], pool: Any, flatten: Any, dropout: Any, lstm: Any, dense: Any, head: Any
) -> None:
    """Raises UserError for a layer that computes something else than the network of the question."""
    square, pool_size = (convs[0].kernel_size[0],) * 2, (pool.pool_size[0],) * 2
    sizes: dict[str, list[Any]] = {
        "kernel_size": [square],
        "strides": [(1, 1)],
        "dilation_rate": [(1, 1)],
        "groups": [1],
    }
    gates: dict[str, list[Any]] = {"activation": ["tanh"], "recurrent_activation": ["sigmoid"], "use_bias": [True]}
    allowed: list[tuple[Any, dict[str, list[Any]]]] = [
        *((conv, sizes | {"padding": ["valid"], "activation": ["relu"], "use_bias": [True]}) for conv in convs),
        (pool, {"pool_size": [pool_size], "strides": [pool_size], "padding": ["valid"]}),
        (lstm, gates | {"go_backwards": [False], "return_sequences": [False]}),
        (dense, {"activation": ["linear"], "use_bias": [True]}),
        (head, {"activation": ["linear", "softmax"], "use_bias": [True]}),
    ]
    for layer, settings in allowed:
        config = layer.get_config()
        for name, values in settings.items():
            found = tuple(config[name]) if isinstance(config[name], list) else config[name]
            if found not in values:
                wanted = " or ".join(map(str, values))
                raise UserError(f"layer {layer.name} ({type(layer).__name__}) has {name}={found}; it must be {wanted}.")

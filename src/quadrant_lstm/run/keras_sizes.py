"""Reads the sizes of the network of the question, as a model of Keras 3 or as a network of this project.

Raises UserError for any other network. Imports Keras, which an extra installs.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from quadrant_lstm.data.frames import Shape
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.network import CNNLSTM
from quadrant_lstm.model.rnn import LSTM

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
from keras import layers

KINDS = "Conv2D, ..., MaxPooling2D, Flatten, Dropout, LSTM, Dense, Dense"


class KerasSizes(NamedTuple):
    """The keys of conf/model/cnn_lstm.yaml; the defaults are the question's values."""

    filters: Sequence[int] = (32, 32)
    kernel_size: int = 3
    pool_size: int = 2
    dropout: float = 0.25
    lstm_units: int = 5
    dense_units: int = 50


def sizes_of_network(network: Any) -> KerasSizes:
    """Raises UserError if the network cannot be written as a model of Keras."""
    recurrent: Any = getattr(network, "recurrent", None)
    plain = type(network) is CNNLSTM and type(recurrent) is LSTM
    if not plain or recurrent.num_layers > 1 or recurrent.bidirectional:
        raise UserError("format=keras: writes model=cnn_lstm with one LSTM layer in one direction; use format=onnx.")
    convs = [layer for layer in network.encoder.module if isinstance(layer, torch.nn.Conv2d)]
    return KerasSizes(
        [conv.out_channels for conv in convs], convs[0].kernel_size[0], network.encoder.module.pool.kernel_size,
        network.dropout.p, recurrent.hidden_size, network.dense.out_features,
    )  # fmt: skip


def inner_layers(model: keras.Model) -> list[Any]:
    """Returns the layers inside TimeDistributed, then the others."""
    return [layer.layer if isinstance(layer, layers.TimeDistributed) else layer for layer in model.layers]


def conv_layers(model: keras.Model) -> list[Any]:
    return [layer for layer in inner_layers(model) if isinstance(layer, layers.Conv2D)]


def has_channels_first(model: keras.Model) -> bool:
    return conv_layers(model)[0].data_format == "channels_first"


def sizes_of_keras(model: keras.Model) -> tuple[KerasSizes, Shape, int]:
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
    if steps is None or len(shape) != 3:
        raise UserError(f"the model reads {list(model.input_shape)}; it must be [batch, steps, ...] with frames.")
    frame_shape = shape if has_channels_first(model) else [shape[2], *shape[:2]]
    filters = [conv.filters for conv in convs]
    sizes = KerasSizes(filters, convs[0].kernel_size[0], pool.pool_size[0], dropout.rate, lstm.units, dense.units)
    return sizes, frame_shape, head.units


def check_settings(
    convs: Sequence[Any], pool: Any, flatten: Any, dropout: Any, lstm: Any, dense: Any, head: Any
) -> None:
    """Raises UserError for a layer that computes something other than the network of the question."""
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

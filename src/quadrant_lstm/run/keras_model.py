"""Builds the network of the question in Keras 3, as its author wrote it, and copies weights in both directions.

Keras has convolutions [rows, columns, in, out], matrices [in, out], and one LSTM bias where PyTorch adds two. With the
channels last, it also flattens maps in another order than PyTorch. Imports Keras, which an extra installs.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from quadrant_lstm.data.orderings import SequenceSpec, Shape
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.network import CNNLSTM
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.run.program import Inputs

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
from keras import layers

# The sizes of the network of the question; other networks raise UserError


LAYERS = "Conv2D, ..., MaxPooling2D, Flatten or Reshape, Dropout, LSTM, Dense, Dense"
TAILS = [
    [layers.MaxPooling2D, flatten, layers.Dropout, layers.LSTM, layers.Dense, layers.Dense]
    for flatten in (layers.Flatten, layers.Reshape)
]
Settings = dict[str, list[Any]]  # the values that a layer may have
# activations that are layers of their own, and the settings with which they compute just these
ACTIVATIONS: dict[type, tuple[str, Settings]] = {
    layers.ReLU: ("relu", {"max_value": [None], "negative_slope": [0.0], "threshold": [0.0]}),
    layers.Softmax: ("softmax", {"axis": [-1, 1]}),
}


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


class Stage(NamedTuple):
    layer: Any
    settings: dict[str, Any]  # its config in Keras, with the activation that a layer of its own computes behind it


def stages_of(model: keras.Model) -> list[Stage]:
    """Returns the layers that do more than compute the activation of the layer before them."""
    stages: list[Stage] = []
    for layer in inner_layers(model):
        activation = activation_of(layer)
        before = stages[-1].settings.get("activation") if stages else None
        if activation and (before == "linear" or before == activation == "relu"):
            stages[-1].settings["activation"] = activation
        elif activation != "linear" and not isinstance(layer, layers.InputLayer):
            stages.append(Stage(layer, layer.get_config()))
    return stages


def activation_of(layer: Any) -> Any:
    """Returns what a layer computes that is an activation of its own, or None for another layer."""
    if type(layer) is layers.Activation:
        return layer.get_config()["activation"]
    name, required = ACTIVATIONS.get(type(layer), (None, {}))
    check_settings(Stage(layer, layer.get_config()), required)
    return name


def ends_in_softmax(model: keras.Model) -> bool:
    return stages_of(model)[-1].settings["activation"] == "softmax"


def sizes_of_keras(model: keras.Model) -> tuple[KerasSizes, Shape, int]:
    """Returns the sizes, the shape of a frame and the number of classes. Raises UserError for another network."""
    stages, count = stages_of(model), len(conv_layers(model))
    names = ", ".join(type(stage.layer).__name__ for stage in stages)
    convs, rest = stages[:count], stages[count:]
    rest[1:3] = sorted(rest[1:3], key=lambda stage: isinstance(stage.layer, layers.Dropout))  # either order is the same
    kinds = [type(stage.layer) for stage in convs + rest]
    if not convs or kinds not in ([*[layers.Conv2D] * count, *tail] for tail in TAILS):
        raise UserError(
            f"the model has the layers {names}; they must be {LAYERS}, and an "
            "Activation must follow the layer that it belongs to."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UserError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs; it must have one each."
        )
    _, steps, *shape = model.input_shape
    if steps is None or len(shape) != 3:
        raise UserError(f"the model reads {list(model.input_shape)}; it must be [batch, steps, ...] with frames.")
    check_stages(convs, *rest)
    pool, flatten, dropout, lstm, dense, head = (stage.layer for stage in rest)
    if flatten in model.layers and flatten.target_shape[0] not in (steps, -1):  # a Reshape outside TimeDistributed
        raise UserError(
            f"layer {flatten.name} (Reshape) has target_shape={flatten.target_shape}; it must be ({steps}, -1), "
            "a vector for each step."
        )
    frame_shape = shape if has_channels_first(model) else [shape[2], *shape[:2]]
    filters, kernel_size = [conv.layer.filters for conv in convs], convs[0].layer.kernel_size[0]
    sizes = KerasSizes(filters, kernel_size, pool.pool_size[0], dropout.rate, lstm.units, dense.units)
    return sizes, frame_shape, head.units


def check_stages(
    convs: Sequence[Stage], pool: Stage, flatten: Stage, dropout: Stage, lstm: Stage, dense: Stage, head: Stage
) -> None:
    """Raises UserError for a layer that computes something other than the network of the question."""
    square, pool_size = (convs[0].layer.kernel_size[0],) * 2, (pool.layer.pool_size[0],) * 2
    sizes: Settings = {"kernel_size": [square], "strides": [(1, 1)], "dilation_rate": [(1, 1)], "groups": [1]}
    gates: Settings = {"activation": ["tanh"], "recurrent_activation": ["sigmoid"], "use_bias": [True]}
    for conv in convs:
        check_settings(conv, sizes | {"padding": ["valid"], "activation": ["relu"], "use_bias": [True]})
    check_settings(pool, {"pool_size": [pool_size], "strides": [pool_size], "padding": ["valid"]})
    no_dropout: Settings = {"dropout": [0.0], "recurrent_dropout": [0.0]}  # PyTorch's LSTM has no such layer inside
    check_settings(lstm, gates | no_dropout | {"go_backwards": [False], "return_sequences": [False]})
    check_settings(dense, {"activation": ["linear"], "use_bias": [True]})
    check_settings(head, {"activation": ["linear", "softmax"], "use_bias": [True]})


def check_settings(stage: Stage, required: Settings) -> None:
    for name, values in required.items():
        found = stage.settings[name]
        found = tuple(found) if isinstance(found, list) else found
        if found not in values:
            layer, wanted = stage.layer, " or ".join(map(str, values))
            raise UserError(f"layer {layer.name} ({type(layer).__name__}) has {name}={found}; it must be {wanted}.")


def sizes_of_weights(weights: Sequence[Sequence[np.ndarray]]) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Returns the weights of all layers in the order of the network, and those sizes that their shapes tell.

    Raises UserError if they are not the weights of the layers of the network of the question.
    """
    convs = [layer for layer in weights if [weight.ndim for weight in layer] == [4, 1]]
    lstms = [layer for layer in weights if [weight.ndim for weight in layer] == [2, 2, 1]]
    denses = [layer for layer in weights if [weight.ndim for weight in layer] == [2, 1]]
    in_order, kernel_sizes = [*convs, *lstms, *denses], {size for kernel, _ in convs for size in kernel.shape[:2]}
    counts = len(kernel_sizes), len(lstms), len(denses), len(in_order)
    if counts != (1, 1, 2, len(weights)) or lstms[0][1].shape[1] != 4 * lstms[0][1].shape[0]:  # of its four gates
        shapes = [list(weight.shape) for layer in weights for weight in layer]
        raise UserError(f"has weights {shapes}, but those of the layers {LAYERS} are needed.")
    (kernel_size,), units = kernel_sizes, lstms[0][1].shape[0]
    sizes = {"filters": [kernel.shape[-1] for kernel, _ in convs], "kernel_size": kernel_size, "lstm_units": units}
    return [weight for layer in in_order for weight in layer], sizes | {"dense_units": denses[0][0].shape[1]}


# The model


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

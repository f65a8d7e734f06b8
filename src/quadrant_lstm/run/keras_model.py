"""Builds the network of the question in Keras 3, as its author wrote it, and copies weights in both directions.

Keras has convolutions [rows, columns, in, out], matrices [in, out], and one LSTM bias where PyTorch adds two. With the
channels last, it also flattens maps in another order than PyTorch. Imports Keras, which an extra installs, with the
backend that the environment names.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import torch
from keras import layers

from quadrant_lstm.data.orderings import SequenceSpec, Shape
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.network import CNNLSTM
from quadrant_lstm.model.rnn import LSTM, swap_axes
from quadrant_lstm.run.exported_program import Inputs

# The model


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


def layers_of_question(sizes: KerasSizes, num_classes: int, activation: str | None) -> list[Any]:
    last: Any = {"data_format": "channels_last"}  # whatever the user's keras.json says
    return [
        *(layers.Conv2D(filters, sizes.kernel_size, activation="relu", **last) for filters in sizes.filters),
        layers.MaxPooling2D(sizes.pool_size, **last),
        layers.Flatten(**last),
        layers.Dropout(sizes.dropout),
        layers.LSTM(sizes.lstm_units),
        layers.Dense(sizes.dense_units),
        layers.Dense(num_classes, activation=activation),
    ]


def build_keras_model(sizes: KerasSizes, spec: SequenceSpec, activation: str | None = None) -> keras.Model:
    """Frames are [steps, height, width, channels]."""
    channels, height, width = spec.frame_shape
    *encoder, dropout, lstm, dense, head = layers_of_question(sizes, spec.num_classes, activation)
    frames = keras.Input((spec.num_steps, height, width, channels))
    return keras.Sequential([frames, *map(layers.TimeDistributed, encoder), dropout, lstm, dense, head])


# A model of somebody else: its sizes, if it has the layers of the question


LAYERS = "Conv2D, ..., MaxPooling2D, Flatten or Reshape, Dropout, LSTM, Dense, Dense"
AFTER_CONVS = [layers.MaxPooling2D, layers.Flatten, layers.Dropout, layers.LSTM, layers.Dense, layers.Dense]
ACTIVATIONS: dict[type, str] = {layers.ReLU: "relu", layers.Softmax: "softmax"}  # layers that are nothing else
# The settings that change what a layer computes, and dropout inside an LSTM, which PyTorch does not have
SETTINGS = (
    "kernel_size", "pool_size", "strides", "padding", "dilation_rate", "groups", "activation", "recurrent_activation",
    "use_bias", "go_backwards", "return_sequences", "dropout", "recurrent_dropout", "max_value", "negative_slope",
    "threshold", "axis",
)  # fmt: skip


def load_model(file: Path) -> keras.Model:
    """Keras refuses code in the file: safe_mode is its default."""
    try:
        model = keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras raises errors of many types
        reason = str(error).partition("\n")[0]
        remedy = "save a model of Keras's own layers with model.save"
        raise UserError(f"{file}: cannot be read as a Keras model ({reason}); {remedy}.") from error
    for layer in (*model.layers, *inner_layers(model)):
        layer.dtype_policy = "float32"  # not in half precision, which would differ from the network
    return model


def inner_layers(model: keras.Model) -> list[Any]:
    """Returns the layers inside TimeDistributed, and the others."""
    return [layer.layer if isinstance(layer, layers.TimeDistributed) else layer for layer in model.layers]


def settings_of(model: keras.Model) -> dict[Any, dict[str, Any]]:
    """Returns the config of each layer, with the activation that a layer of its own computes behind it."""
    stages: dict[Any, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for layer in inner_layers(model):
        settings = layer.get_config()
        if type(layer) in ACTIVATIONS:
            check_settings(layer, settings, type(layer)())
        activation = ACTIVATIONS.get(type(layer)) or (isinstance(layer, layers.Activation) and settings["activation"])
        if activation and last.get("activation") == "linear":
            last["activation"] = activation
        elif not isinstance(layer, layers.InputLayer):
            stages[layer] = last = settings
    return stages


def check_settings(layer: Any, settings: dict[str, Any], expected: Any) -> None:
    """Raises UserError for a layer that does not compute what the expected one does."""
    wanted = expected.get_config()
    for name in SETTINGS:
        if name in wanted and settings.get(name) != wanted[name]:
            setting = f"{name}={settings.get(name)}"
            raise UserError(f"layer {layer.name} ({type(layer).__name__}) has {setting}; it must be {wanted[name]}.")


def sizes_of_keras(model: keras.Model) -> tuple[KerasSizes, Shape, int]:
    """Returns the sizes, the shape of a frame and the number of classes. Raises UserError for another network."""
    stages = settings_of(model)
    convs = [layer for layer in stages if type(layer) is layers.Conv2D]
    rest = list(stages)[len(convs) :]
    rest[1:3] = sorted(rest[1:3], key=lambda layer: type(layer) is layers.Dropout)  # either order is the same
    kinds = [layers.Flatten if type(layer) is layers.Reshape else type(layer) for layer in rest]
    if not convs or kinds != AFTER_CONVS:
        names = ", ".join(type(layer).__name__ for layer in stages)
        rule = f"they must be {LAYERS}, and an Activation must follow the layer that it belongs to"
        raise UserError(f"the model has the layers {names}; {rule}.")
    inputs = [list(tensor.shape) for tensor in model.inputs]
    if len(inputs) != 1 or len(model.outputs) != 1 or len(inputs[0]) != 5 or inputs[0][1] is None:
        raise UserError(f"the model reads {inputs}; it must read frames [batch, steps, ...] and have one output.")
    shape = inputs[0][2:]
    pool, _, dropout, lstm, dense, head = rest
    filters, kernel_size = [conv.filters for conv in convs], convs[0].kernel_size[0]
    sizes = KerasSizes(filters, kernel_size, pool.pool_size[0], dropout.rate, lstm.units, dense.units)
    activation = "softmax" if stages[head]["activation"] == "softmax" else None
    for layer, wanted in zip([*convs, *rest], layers_of_question(sizes, head.units, activation), strict=True):
        check_settings(layer, stages[layer], wanted)
    return sizes, shape if has_channels_first(model) else [shape[2], *shape[:2]], head.units


def conv_layers(model: keras.Model) -> list[Any]:
    return [layer for layer in inner_layers(model) if isinstance(layer, layers.Conv2D)]


def has_channels_first(model: keras.Model) -> bool:
    return conv_layers(model)[0].data_format == "channels_first"


# The weights, which both have in the same order


MAX_DIFFERENCE = 1e-4  # of an output between the models; both compute in fp32
INPUT_WEIGHT = "recurrent.weight_ih_l0"
BIAS, SECOND_BIAS = "recurrent.bias_ih_l0", "recurrent.bias_hh_l0"


def copy_to_keras(network: Any, model: keras.Model) -> None:
    """Copies the weights to a model of build_keras_model."""
    state = dict(network.state_dict())
    state[BIAS] = state[BIAS] + state.pop(SECOND_BIAS)
    state[INPUT_WEIGHT] = swap_axes(state[INPUT_WEIGHT], conv_layers(model)[-1].filters, -1)
    weights = [weight.permute(2, 3, 1, 0) if weight.ndim == 4 else weight.movedim(0, -1) for weight in state.values()]
    model.set_weights([weight.cpu().numpy() for weight in weights])


def copy_from_keras(model: keras.Model, network: Any) -> None:
    """Raises ValueError or RuntimeError if the model has another number of weights, or other shapes."""
    weights = [torch.tensor(weight) for weight in model.get_weights()]
    weights = [weight.permute(3, 2, 0, 1) if weight.ndim == 4 else weight.movedim(-1, 0) for weight in weights]
    names = [name for name in network.state_dict() if name != SECOND_BIAS]
    state = dict(zip(names, weights, strict=True))
    formats = [layer.data_format for layer in inner_layers(model) if isinstance(layer, layers.Flatten)]
    if not has_channels_first(model) or formats == ["channels_first"]:  # the LSTM reads maps with their channels last
        state[INPUT_WEIGHT] = swap_axes(state[INPUT_WEIGHT], -1, conv_layers(model)[-1].filters)
    network.load_state_dict(state | {SECOND_BIAS: torch.zeros_like(state[BIAS])})


def copy_checked(file: Path, model: keras.Model, network: torch.nn.Module, inputs: Inputs) -> None:
    """Copies the weights of a Keras model. Raises UserError if the network does not compute what the model does."""
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise UserError(f"{file}: has weights that are NaN or infinite; save the model of an earlier epoch.")
    try:
        copy_from_keras(model, network)
        difference = largest_difference(model, network.eval(), inputs)
    except (ValueError, RuntimeError):
        difference = float("inf")
    if not difference <= MAX_DIFFERENCE:  # also NaN
        remedy = "connect its layers one after another, each once, and let a Reshape keep the steps"
        raise UserError(f"{file}: computes something else than the network of the question with its layers; {remedy}.")


@torch.no_grad()
def largest_difference(model: keras.Model, network: torch.nn.Module, inputs: Inputs) -> float:
    """Returns the largest difference between the outputs of the models, for random inputs."""
    frames = inputs.to_frames(torch.rand(2, *inputs.shape))
    outputs = keras.ops.convert_to_numpy(model((frames if has_channels_first(model) else frames.movedim(2, 4)).numpy()))
    logits = network(frames)
    *_, settings = settings_of(model).values()
    ours = logits.softmax(1) if settings["activation"] == "softmax" else logits
    return (ours - torch.from_numpy(outputs)).abs().max().item()

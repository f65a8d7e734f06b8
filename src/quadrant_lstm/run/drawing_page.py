"""Writes a page on which a person draws a digit and sees what the network predicts after each step.

It is one file that needs neither a server nor the internet: templates/drawing/ with the weights inside.
"""

import base64
import copy
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import QUADRANTS, SequenceSpec, Shape, frames_of, image_shape_of, orderings_of, scaled
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import Grid, OrderingsOrNames
from quadrant_lstm.model.deep import DeepCNNLSTM, JoinedPieces, PiecePool
from quadrant_lstm.model.encoder import ConvEncoder, Encoder, PaddedEncoder
from quadrant_lstm.model.network import CNNLSTM, Dropout, Join
from quadrant_lstm.model.protocols import count_parameters
from quadrant_lstm.model.recurrent import StepClassifier
from quadrant_lstm.model.rnn import GRU, LSTM, PaddedRNN
from quadrant_lstm.model.time_distributed import TimeDistributed
from quadrant_lstm.run.exported_program import is_tested_as_shown, orderings_shown
from quadrant_lstm.run_folder import read_results, unfinished
from quadrant_lstm.text import render

# A network as the layers of the page, and one array of their weights
#
# Batch norm is folded into the convolutions. Weights follow one another in the order of the layers, those of
# convolutions as [outputs, rows, columns, inputs], because the maps of templates/drawing/network.js have their channels
# last.


KNOWN = "convolutions, batch norm after them, ReLU, max-pools, LSTM, GRU and linear layers"
SEQUENTIAL = (nn.Sequential, Encoder, ConvEncoder, PaddedEncoder)


Layer = tuple[dict[str, Any], Sequence[Tensor]]  # what network.js reads, and the weights


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Returns a copy in eval mode whose convolutions include the batch norm after them."""
    network = copy.deepcopy(network).eval()
    for sequence in [module for module in network.modules() if type(module) in SEQUENTIAL]:
        for (name, conv), (norm_name, norm) in itertools.pairwise(list(sequence.named_children())):
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
                setattr(sequence, name, fuse_conv_bn_eval(conv, norm))
                setattr(sequence, norm_name, nn.Identity())
    return network


def page_network(
    network: nn.Module, frame_shape: Shape, num_classes: int, orderings: OrderingsOrNames, grid: Grid
) -> tuple[dict[str, Any], Tensor]:
    """Returns what network.js reads of a network that fold_batch_norm returned, and the weights of all layers. Raises
    UserError that names a layer which is unknown.
    """
    if type(network) not in (Join, CNNLSTM, DeepCNNLSTM) or not isinstance(network, StepClassifier):
        raise unknown("model", network)
    if tuple(grid) != QUADRANTS:
        raise UserError(f"format=html: data.grid is {list(grid)}, but the page cuts quadrants; use format=onnx.")
    channels, height, width = image_shape_of(frame_shape, len(orderings), grid)
    if channels != 1:
        raise UserError(f"format=html: images have {channels} channels, but the page has one; use format=onnx.")
    outer = network.encoder
    if network.differences:
        raise UserError("format=html: the page cannot compute model.differences=true; use format=onnx.")
    if not isinstance(outer, JoinedPieces | TimeDistributed):
        raise unknown("encoder", outer)
    if isinstance(outer, JoinedPieces) and outer.joined_grid != QUADRANTS:
        raise UserError("format=html: model.join_pieces is false, but the page encodes whole images; use format=onnx.")
    parts = {
        "encoder": list(encoder_layers("encoder", outer.module)),
        "recurrent": list(recurrent_layers(network.recurrent)),
        "classifier": [linear_layer(getattr(network, name)) for name in ("dense", "head") if hasattr(network, name)],
    }
    description = {
        "height": height, "width": width, "classes": num_classes, "orderings": orderings_of(orderings, grid),
        "encodes": "image" if isinstance(outer, JoinedPieces) else "frame",
    }  # fmt: skip
    description |= {name: [layer for layer, _ in layers] for name, layers in parts.items()}
    weights = [weight for layers in parts.values() for _, weights in layers for weight in weights]
    return description, torch.cat([weight.detach().flatten() for weight in weights])


def unknown(name: str, layer: nn.Module) -> UserError:
    text = repr(layer) if next(layer.children(), None) is None else type(layer).__name__
    return UserError(f"format=html: {name} is {text}, which the page cannot compute, only {KNOWN}; use format=onnx.")


def plain_pool_size(pool: Any) -> list[int] | None:
    """Returns the rows and columns of an nn.MaxPool2d without overlap, padding or dilation, or None for another."""
    sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    size, *others = [[value, value] if isinstance(value, int) else list(value) for value in sizes]
    return size if others == [size, [0, 0], [1, 1]] else None


def encoder_layers(name: str, layer: nn.Module) -> Iterator[Layer]:
    if type(layer) in SEQUENTIAL:
        for child_name, child in layer.named_children():
            yield from encoder_layers(f"{name}.{child_name}", child)
    elif type(layer) is nn.Conv2d and is_plain_conv(layer):
        sizes = {"inputs": layer.in_channels, "outputs": layer.out_channels}
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
        description = {"type": "conv", **sizes, "kernel": layer.kernel_size[0], "padding": int(layer.padding[0])}
        yield description, (layer.weight.permute(0, 2, 3, 1), bias)
    elif type(layer) is nn.ReLU:
        yield {"type": "relu"}, ()
    elif type(layer) in (nn.MaxPool2d, PiecePool) and (size := plain_pool_size(layer)) and size[0] == size[1]:
        quadrants = type(layer) is PiecePool
        yield {"type": "pool", "size": size[0], "ceil": layer.ceil_mode, "quadrants": quadrants}, ()
    elif type(layer) not in (nn.Identity, nn.Dropout, Dropout):
        raise unknown(name, layer)


def is_plain_conv(conv: nn.Conv2d) -> bool:
    square = len(set(conv.kernel_size)) == 1 and not isinstance(conv.padding, str) and len(set(conv.padding)) == 1
    plain = conv.stride == conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    return square and plain


def recurrent_layers(rnn: Any) -> Iterator[Layer]:
    if type(rnn) not in (LSTM, GRU, nn.LSTM, nn.GRU) or rnn.proj_size or not rnn.bias:
        raise unknown("recurrent", rnn)
    suffixes = ("", "_reverse") if rnn.bidirectional else ("",)
    for layer in range(rnn.num_layers):
        weights: list[Tensor] = []
        for suffix in suffixes:
            names = [f"{name}_l{layer}{suffix}" for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")]
            weights += map(rnn.get_parameter, names)
            if isinstance(rnn, PaddedRNN):
                weights[-4] = rnn.input_weight(f"_l{layer}{suffix}")
        sizes = {"inputs": weights[0].shape[1], "units": rnn.hidden_size, "bidirectional": rnn.bidirectional}
        yield {"type": rnn.mode.lower(), **sizes}, weights


def linear_layer(layer: nn.Linear) -> Layer:
    sizes = {"inputs": layer.in_features, "outputs": layer.out_features}
    return {"type": "linear", **sizes}, (layer.weight, layer.bias)


# The page


NUM_COMPARED = 1000  # test images


def drawing_page(network: nn.Module, spec: SequenceSpec, cfg: DictConfig, folder: Path, weights: str) -> str:
    """Returns the page. `weights` is the type that they are stored in, float32 or float16.

    `cfg` is the config of the run in `folder`. Raises UserError if the page cannot compute a layer.
    """
    if "grid" not in cfg.data:
        raise UserError("format=html: this run reads no images, but the page cuts an image; use format=onnx.")
    stored = fold_batch_norm(network)
    orderings = orderings_shown(cfg.data)
    description, values = page_network(stored, spec.frame_shape, spec.num_classes, orderings, cfg.data.grid)
    rounding = None
    if weights == "float16":
        round_to_half(stored)
        rounding = change_by_rounding(network.eval(), stored, cfg.data)
    description["weights"] = weights
    if others := cfg.data.get("train_orderings"):
        description["trained"] = orderings_of(others, cfg.data.grid)
    results = read_results(folder) if is_tested_as_shown(cfg.data) else {}
    content = values.numpy().astype("<f2" if weights == "float16" else "<f4").tobytes()
    return render(
        "drawing/page.html", network=description, weights=base64.b64encode(content).decode(),
        kind=type(network).__name__, num_parameters=count_parameters(network), results=results,
        unfinished=unfinished(folder, cfg), subject="digit" if cfg.data.dataset.lower() == "mnist" else "image",
        rounding=rounding, num_compared=NUM_COMPARED,
    )  # fmt: skip


@torch.no_grad()
def round_to_half(network: nn.Module) -> None:
    for name, weight in network.named_parameters():
        if not weight.half().isfinite().all():
            raise UserError(f"weights=float16: {name} has values that are too large; use weights=float32.")
        weight.copy_(weight.half())


@torch.inference_mode()
def change_by_rounding(network: nn.Module, rounded: nn.Module, data: DictConfig) -> float:
    """Returns the largest difference of a probability between the networks, on test images."""
    images = torch.from_numpy(load_images(data.dataset, data.root).test_images[:NUM_COMPARED])
    frames = scaled(frames_of(images, orderings_shown(data), data.grid))
    return (network(frames).softmax(1) - rounded(frames).softmax(1)).abs().max().item()

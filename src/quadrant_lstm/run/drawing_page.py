"""Writes a page on which a person draws a digit and sees what the network predicts after each step.

It is one file that needs neither a server nor the internet: templates/drawing/ with the weights inside.
"""

import base64
import copy
import itertools
from collections.abc import Iterator
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
from quadrant_lstm.model.protocols import count_parameters, map_tensors
from quadrant_lstm.model.recurrent import StepClassifier
from quadrant_lstm.model.rnn import GRU, LSTM, PaddedRNN
from quadrant_lstm.model.time_distributed import TimeDistributed
from quadrant_lstm.run.exported_program import is_tested_as_shown, orderings_shown
from quadrant_lstm.run_folder import read_results, unfinished
from quadrant_lstm.text import render

# A network as the layers of the page, with their weights
#
# Batch norm is folded into the convolutions, whose weights are [outputs, rows, columns, inputs], because the maps of
# templates/drawing/network.js have their channels last.


KNOWN = "convolutions, batch norm after them, ReLU, max-pools, LSTM, GRU and linear layers"
SEQUENTIAL = (nn.Sequential, Encoder, ConvEncoder, PaddedEncoder)


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
) -> dict[str, Any]:
    """Returns what network.js reads of a network that fold_batch_norm returned. Raises UserError that names a layer
    which is unknown.
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
    linear = [getattr(network, name) for name in ("dense", "head") if hasattr(network, name)]
    return {
        "height": height, "width": width, "classes": num_classes, "orderings": orderings_of(orderings, grid),
        "encodes": "image" if isinstance(outer, JoinedPieces) else "frame",
        "encoder": list(encoder_layers("encoder", outer.module)),
        "recurrent": list(recurrent_layers(network.recurrent)),
        "classifier": [{"weight": layer.weight, "bias": layer.bias} for layer in linear],
    }  # fmt: skip


def unknown(name: str, layer: nn.Module) -> UserError:
    text = repr(layer) if next(layer.children(), None) is None else type(layer).__name__
    return UserError(f"format=html: {name} is {text}, which the page cannot compute, only {KNOWN}; use format=onnx.")


def plain_pool_size(pool: Any) -> list[int] | None:
    """Returns the rows and columns of an nn.MaxPool2d without overlap, padding or dilation, or None for another."""
    sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    size, *others = [[value, value] if isinstance(value, int) else list(value) for value in sizes]
    return size if others == [size, [0, 0], [1, 1]] else None


def encoder_layers(name: str, layer: nn.Module) -> Iterator[dict[str, Any]]:
    if type(layer) in SEQUENTIAL:
        for child_name, child in layer.named_children():
            yield from encoder_layers(f"{name}.{child_name}", child)
    elif type(layer) is nn.Conv2d and is_plain_conv(layer):
        sizes = {"kernel": layer.kernel_size[0], "padding": int(layer.padding[0])}
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
        yield {"type": "conv", **sizes, "weight": layer.weight.permute(0, 2, 3, 1), "bias": bias}
    elif type(layer) is nn.ReLU:
        yield {"type": "relu"}
    elif type(layer) in (nn.MaxPool2d, PiecePool) and (size := plain_pool_size(layer)) and size[0] == size[1]:
        quadrants = type(layer) is PiecePool
        yield {"type": "pool", "size": size[0], "ceil": layer.ceil_mode, "quadrants": quadrants}
    elif type(layer) not in (nn.Identity, nn.Dropout, Dropout):
        raise unknown(name, layer)


def is_plain_conv(conv: nn.Conv2d) -> bool:
    square = len(set(conv.kernel_size)) == 1 and not isinstance(conv.padding, str) and len(set(conv.padding)) == 1
    plain = conv.stride == conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    return square and plain


def recurrent_layers(rnn: Any) -> Iterator[dict[str, Any]]:
    if type(rnn) not in (LSTM, GRU, nn.LSTM, nn.GRU) or rnn.proj_size or not rnn.bias:
        raise unknown("recurrent", rnn)
    for layer in range(rnn.num_layers):
        directions = []
        for end in (f"_l{layer}", f"_l{layer}_reverse")[: 1 + rnn.bidirectional]:
            names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
            weight_ih, bias_ih, weight_hh, bias_hh = (rnn.get_parameter(name + end) for name in names)
            if isinstance(rnn, PaddedRNN):
                weight_ih = rnn.input_weight(end)
            state = {"weight": weight_hh, "bias": bias_hh}
            directions.append({"input": {"weight": weight_ih, "bias": bias_ih}, "state": state})
        sizes = {"units": rnn.hidden_size, "bidirectional": rnn.bidirectional}
        yield {"type": rnn.mode.lower(), **sizes, "directions": directions}


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
    description = page_network(stored, spec.frame_shape, spec.num_classes, orderings, cfg.data.grid)
    rounding = None
    if weights == "float16":
        round_to_half(stored)
        rounding = change_by_rounding(network.eval(), stored, cfg.data)
    if others := cfg.data.get("train_orderings"):
        description["trained"] = orderings_of(others, cfg.data.grid)
    results = read_results(folder) if is_tested_as_shown(cfg.data) else {}

    def as_text(weight: Tensor) -> str:
        values = weight.detach().numpy().astype("<f2" if weights == "float16" else "<f4")
        return base64.b64encode(values.tobytes()).decode()

    values = {
        "network": map_tensors(as_text, description), "weights": weights, "kind": type(network).__name__,
        "num_parameters": count_parameters(network), "results": results, "unfinished": unfinished(folder, cfg),
        "subject": "digit" if cfg.data.dataset.lower() == "mnist" else "image", "rounding": rounding,
        "num_compared": NUM_COMPARED,
    }  # fmt: skip
    return render("drawing/page.html", values=values, **values)


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

"""Writes a page on which a person draws a digit and sees what the network predicts after each step.

It is one file that needs neither a server nor the internet: templates/drawing/ with the weights inside.
"""

import base64
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import nn

from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import SequenceSpec, frames_of, scaled
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.protocols import count_parameters
from quadrant_lstm.run.inputs import orderings_shown
from quadrant_lstm.run.page_layers import fold_batch_norm, page_network
from quadrant_lstm.run_folder import read_results, unfinished
from quadrant_lstm.text import render

NUM_COMPARED = 1000  # test images


def drawing_page(network: nn.Module, spec: SequenceSpec, cfg: DictConfig, folder: Path, weights: str) -> str:
    """Returns the page. `weights` is the type that they are stored in, float32 or float16.

    `cfg` is the config of the run in `folder`. Raises UserError if the page cannot compute a layer.
    """
    if "grid" not in cfg.data:
        raise UserError("format=html: this run reads clips, but the page cuts an image; use format=onnx.")
    stored = fold_batch_norm(network)
    description, values = page_network(
        stored, spec.frame_shape, spec.num_classes, orderings_shown(cfg.data), cfg.data.grid
    )
    rounding = None
    if weights == "float16":
        round_to_half(stored)
        rounding = change_by_rounding(network.eval(), stored, cfg.data)
    content = values.numpy().astype("<f2" if weights == "float16" else "<f4").tobytes()
    return render(
        "drawing/page.html", network=description | {"weights": weights}, weights=base64.b64encode(content).decode(),
        kind=type(network).__name__, num_parameters=count_parameters(network), results=read_results(folder) or None,
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

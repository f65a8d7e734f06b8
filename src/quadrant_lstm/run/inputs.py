"""Defines the inputs of exported programs and of predictions: images, which are cut as in the training, or clips.

images [batch, channels, height, width] -> frames [batch, steps, channels, height, width]
clips                                    = frames
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor, nn

from quadrant_lstm.data.orderings import SequenceSpec, Shape, frames_of, image_shape_of, orderings_of, shown_orderings
from quadrant_lstm.kinds import Grid, OrderingsOrNames


class Inputs(NamedTuple):
    name: Literal["images", "clips"]
    shape: tuple[int, ...]  # without the batch
    to_frames: Callable[[Tensor], Tensor]


def cut_images(image_shape: Shape, orderings: OrderingsOrNames, grid: Grid) -> Inputs:
    to_frames = functools.partial(frames_of, orderings=orderings_of(orderings, grid), grid=tuple(grid))
    return Inputs("images", tuple(image_shape), to_frames)


def inputs_of(data: DictConfig, spec: SequenceSpec) -> Inputs:
    """`data` is that group of the run's config."""
    if "grid" not in data:
        return Inputs("clips", (spec.num_steps, *spec.frame_shape), lambda clips: clips)
    image_shape = image_shape_of(spec.frame_shape, len(data.orderings), data.grid)
    return cut_images(image_shape, orderings_shown(data), data.grid)


def orderings_shown(data: DictConfig) -> OrderingsOrNames:
    return shown_orderings(data.orderings, data.get("train_orderings"))


def twice_as_long(clips: Float[Tensor, "batch steps ..."]) -> Float[Tensor, "batch 2*steps ..."]:
    return torch.cat([clips, clips], dim=1)


@torch.inference_mode()
def reads_more_steps(module: nn.Module, clips: Float[Tensor, "batch steps ..."]) -> bool:
    try:
        module(twice_as_long(clips))
    except Exception:  # of any type: a network of the user may raise it
        return False
    return True

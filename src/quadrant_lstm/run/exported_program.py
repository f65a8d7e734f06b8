"""Exports a network as a program from images, clips or series to probabilities: with torch.export, or as ONNX.

images, float32 [batch, channels, height, width] from 0 to 1       -> probabilities [batch, classes]
clips, float32 [batch, steps, channels, height, width] from 0 to 1 -> probabilities [batch, classes]
    and lengths, int64 [batch]: the numbers of frames of clips that are padded at their ends
series, float32 [batch, steps, features], or windows [batch, steps, features, values], and lengths -> the same

The batch has any size, and clips and series have any number of steps if the network reads any. Lengths are an input if
the network takes them. Tiles that the frames of an image share are computed once in the program, too.
"""

import functools
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.export import Dim

from quadrant_lstm.config.check import takes
from quadrant_lstm.data.orderings import SequenceSpec, Shape, frames_of, image_shape_of, orderings_of, shown_orderings
from quadrant_lstm.kinds import Grid, OrderingsOrNames
from quadrant_lstm.model.encoder import Standardize
from quadrant_lstm.model.protocols import Lengths, as_argument

# Inputs: images, which are cut as in the training, clips, or series


class Inputs(NamedTuple):
    name: Literal["images", "clips", "series"]
    shape: tuple[int, ...]  # without the batch
    to_frames: Callable[[Tensor], Tensor]


def cut_images(image_shape: Shape, orderings: OrderingsOrNames, grid: Grid) -> Inputs:
    to_frames = functools.partial(frames_of, orderings=orderings_of(orderings, grid), grid=tuple(grid))
    return Inputs("images", tuple(image_shape), to_frames)


def inputs_of(data: DictConfig, spec: SequenceSpec) -> Inputs:
    """`data` is that group of the run's config."""
    if "grid" not in data:
        kind: Literal["series", "clips"] = "series" if spec.is_series else "clips"
        return Inputs(kind, (spec.num_steps, *spec.frame_shape), lambda sequences: sequences)
    image_shape = image_shape_of(spec.frame_shape, len(data.orderings), data.grid)
    return cut_images(image_shape, orderings_shown(data), data.grid)


def orderings_shown(data: DictConfig) -> list[tuple[int, ...]]:
    """Returns the orderings in which a program cuts images."""
    return orderings_of(shown_orderings(data.orderings, data.get("train_orderings")), data.grid)


def is_tested_as_shown(data: DictConfig) -> bool:
    return orderings_shown(data) == orderings_of(data.get("test_orderings") or data.orderings, data.grid)


def twice_as_long(clips: Float[Tensor, "batch steps ..."]) -> Float[Tensor, "batch 2*steps ..."]:
    return torch.cat([clips, clips], dim=1)


@torch.inference_mode()
def reads_more_steps(module: nn.Module, clips: Float[Tensor, "batch steps ..."], *lengths: Tensor) -> bool:
    try:
        module(twice_as_long(clips), *lengths)
    except Exception:  # of any type: a network of the user may raise it
        return False
    return True


# Programs


MAX_DIFFERENCE = 1e-5  # of a probability between the network and its program


class ToProbabilities(nn.Module):
    def __init__(self, network: nn.Module, inputs: Inputs):
        super().__init__()
        self.network, self.to_frames = network, inputs.to_frames

    def forward(self, samples: Float[Tensor, "batch ..."], lengths: Lengths = None) -> Float[Tensor, "batch classes"]:
        return self.network(self.to_frames(samples), **as_argument(lengths)).softmax(dim=1)


class Program(NamedTuple):
    content: bytes
    difference: float  # the largest of a probability between the program and the network
    any_steps: bool  # whether it reads sequences of any number of steps


def program_file(format: str, network: nn.Module, inputs: Inputs, metadata: Mapping[str, str]) -> Program:
    """Raises RuntimeError if a probability of the program differs by more than MAX_DIFFERENCE."""
    module, samples = ToProbabilities(network, inputs).eval(), torch.rand(7, *inputs.shape)
    for layer in network.modules():
        if isinstance(layer, Standardize):  # gives the samples the range of the data
            samples = layer.mean + layer.deviation * samples
    is_padded = inputs.name != "images" and takes(network.forward, "lengths")
    lengths = (torch.arange(7) % samples.shape[1] + 1,) if is_padded else ()
    any_steps = inputs.name != "images" and reads_more_steps(module, samples, *lengths)
    axes = {0: Dim("batch")} | ({1: Dim.AUTO} if any_steps else {})
    shapes = (axes, {0: axes[0]}) if is_padded else (axes,)
    is_one = any_steps and samples.shape[1] == 1  # torch.export takes an axis of size 1 for one that never changes
    traced = twice_as_long(samples) if is_one else samples
    exported = torch.export.export(module, (traced, *lengths), dynamic_shapes=shapes)
    if format == "onnx":
        content, compute = onnx_file(exported, [inputs.name, "lengths"][: len(shapes)], any_steps, metadata)
    else:
        file, compute = io.BytesIO(), exported.module()
        torch.export.save(exported, file, extra_files={"metadata.json": json.dumps(metadata)})
        content = file.getvalue()
    longer = [(twice_as_long(samples), *lengths)] if any_steps else []
    batches = [tuple(tensor[:1] for tensor in (samples, *lengths)), (samples, *lengths), *longer]
    with torch.inference_mode():
        difference = max((compute(*batch) - module(*batch)).abs().max().item() for batch in batches)
    if difference > MAX_DIFFERENCE:
        raise RuntimeError(f"The probabilities of the {format} file differ from the network's by {difference:.1e}.")
    return Program(content, difference, any_steps)


def onnx_file(
    program: torch.export.ExportedProgram, names: Sequence[str], any_steps: bool, metadata: Mapping[str, str]
) -> tuple[bytes, Callable[..., Any]]:
    import onnxruntime

    axes: list[dict[int, str]] = [{0: "batch"} for _ in names]
    axes[0] |= {1: "steps"} if any_steps else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they concern the exporter itself
        exported: Any = torch.onnx.export(
            program, (), input_names=names, output_names=["probabilities"], dynamic_shapes=tuple(axes), verbose=False
        )
    proto = exported.model_proto
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, dict(zip(names, map(Tensor.numpy, inputs), strict=True)))[0])

    return content, run

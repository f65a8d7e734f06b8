"""Exports a network as a program from images to probabilities, for any batch size: with torch.export, or as ONNX.

images, float32 [batch, channels, height, width] from 0 to 1 -> probabilities [batch, classes]

What frames have in common is computed once in the program, too.
"""

import io
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.data.frames import Shape
from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.data.scans import orderings_of
from quadrant_lstm.kinds import Grid, OrderingsOrNames

TOLERANCE = 1e-5  # maximum difference of a probability between the network and its program
ANY_BATCH = ({0: torch.export.Dim("batch")},)
METADATA = "metadata.json"  # the name of the metadata in a program of torch.export


class ImagesToProbabilities(nn.Module):
    def __init__(self, network: nn.Module, orderings: OrderingsOrNames, grid: Grid):
        super().__init__()
        self.network = network
        self.orderings, self.grid = orderings_of(orderings, grid), tuple(grid)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return self.network(sequences(images, self.orderings, self.grid)).softmax(dim=1)


def program_file(
    format: str,
    network: nn.Module,
    orderings: OrderingsOrNames,
    grid: Grid,
    image_shape: Shape,
    metadata: Mapping[str, str],
) -> tuple[bytes, float]:
    """Returns the content of the file, and the largest difference of a probability between the file and the network.

    Raises RuntimeError if that is more than TOLERANCE.
    """
    module, images = ImagesToProbabilities(network, orderings, grid).eval(), torch.rand(7, *image_shape)
    program = torch.export.export(module, (images,), dynamic_shapes=ANY_BATCH)
    content, compute = (onnx_file if format == "onnx" else torch_file)(program, metadata)
    with torch.inference_mode():
        batches = (images[:1], images)
        difference = max((compute(batch) - module(batch)).abs().max().item() for batch in batches)
    if difference > TOLERANCE:
        raise RuntimeError(f"The probabilities of the {format} file differ from the network's by {difference:.1e}.")
    return content, difference


def torch_file(program: torch.export.ExportedProgram, metadata: Mapping[str, str]) -> tuple[bytes, Callable[..., Any]]:
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={METADATA: json.dumps(metadata)})
    return content.getvalue(), program.module()


def onnx_file(program: torch.export.ExportedProgram, metadata: Mapping[str, str]) -> tuple[bytes, Callable[..., Any]]:
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they concern the exporter itself
        exported: Any = torch.onnx.export(
            program, (), input_names=["images"], output_names=["probabilities"], dynamic_shapes=ANY_BATCH, verbose=False
        )
    proto = exported.model_proto
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

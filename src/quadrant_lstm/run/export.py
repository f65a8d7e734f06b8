"""Exports a run's best checkpoint to a file in the run folder.

network.onnx         images, float [batch, channels, height, width] in [0, 1] -> probabilities [batch, classes]
network.safetensors  the weights by their PyTorch names, and the config as metadata
network.html         a page to draw on, which shows the probabilities after each step
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from quadrant_lstm.data.frames import image_shape_of
from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.errors import needs_extra
from quadrant_lstm.model.protocols import in_full
from quadrant_lstm.run.drawing_page import drawing_page
from quadrant_lstm.run.load import load_classifier
from quadrant_lstm.run_folder import write_atomically

log = logging.getLogger(__name__)
TOLERANCE = 1e-5  # maximum difference of a probability between the network and its ONNX file


class ImagesToProbabilities(nn.Module):
    def __init__(self, network: nn.Module, orderings: list[list[int]]):
        super().__init__()
        self.network = network
        self.orderings = orderings

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return self.network(sequences(images, self.orderings)).softmax(dim=1)


def export(folder: Path, format: str, trust: Sequence[str] = (), weights: str = "float32") -> Path:
    """Writes the file and returns its path. `weights` is the type of the weights in network.html.

    Raises UserError if a package of the format is not installed, or if network.html cannot compute a layer.
    """
    classifier, cfg = load_classifier(folder, trust)
    network, frame_shape = classifier.network.eval(), classifier.hparams["frame_shape"]
    file = folder / f"network.{format}"
    with needs_extra(f"format={format}", "export"):
        if format == "onnx":
            content = onnx_file(network, frame_shape, cfg)
        elif format == "html":
            num_classes = classifier.hparams["num_classes"]
            content = drawing_page(network, frame_shape, num_classes, cfg, folder, weights).encode()
        else:
            from safetensors.torch import save

            content = save(network.state_dict(), {"config": OmegaConf.to_yaml(cfg)})
    write_atomically(file, content)
    log.info(f"{file}  {file.stat().st_size:,} bytes")
    return file


def onnx_file(network: nn.Module, frame_shape: list[int], cfg: DictConfig) -> bytes:
    """Returns the content of the file. Raises RuntimeError if its probabilities differ from the network's."""
    import onnxruntime

    orderings = [list(ordering) for ordering in cfg.data.orderings]
    module = ImagesToProbabilities(in_full(network), orderings).eval()  # shared tiles cannot be exported
    images = torch.rand(7, *image_shape_of(frame_shape, len(orderings)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they concern the exporter itself
        program: Any = torch.onnx.export(
            module, (images,), input_names=["images"], output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
        )  # fmt: skip
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        for batch in (images[:1], images):
            (probabilities,) = session.run(None, {"images": batch.numpy()})
            difference = (torch.from_numpy(probabilities) - module(batch)).abs().max().item()
            if difference > TOLERANCE:
                raise RuntimeError(f"The ONNX file's probabilities differ from the network's by {difference:.1e}")
    return content

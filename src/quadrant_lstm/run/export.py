"""Exports a run's best checkpoint to a file, by default in the run folder.

network.onnx         a program, from images, clips or series to probabilities, for ONNX runtimes
network.pt2          the same program, for torch.export.load
network.safetensors  the weights by their PyTorch names
network.keras        the network of the question in Keras, from frames [4, 56, 14, 1] to logits
network.html         a page to draw on, which shows the probabilities after each step

The first three hold metadata: what goes in and comes out, the orderings, the accuracy, the data's checksum, the config.
"""

import json
import logging
import os
import tempfile
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from quadrant_lstm.config.check import Trust
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.files import expanded, read_json, write_atomically
from quadrant_lstm.run.drawing_page import drawing_page
from quadrant_lstm.run.exported_program import Inputs, inputs_of, is_tested_as_shown, orderings_shown, program_file
from quadrant_lstm.run.load import load_classifier
from quadrant_lstm.run.predictor import clip_format, series_format
from quadrant_lstm.run_folder import EXPORTED, PROVENANCE, read_results

log = logging.getLogger(__name__)
GREY = {"pictures": "(19595 * R + 38470 * G + 7471 * B + 32768) >> 16, of ITU-R 601", "videos": "luma from 0 to 255"}


def export(folder: Path, format: str, trust: Trust = (), weights: str = "float32", output: str | None = None) -> Path:
    """Writes the file, by default to the run folder, and returns its path. `weights` is the type of the weights in
    network.html.

    Raises UserError if a package of the format is not installed, or if network.html cannot compute a layer.
    """
    if weights != "float32" and format != "html":
        raise UserError(f"weights: {weights} is for format=html, but format is {format}; leave it out.")
    classifier, cfg = load_classifier(folder, trust)
    network, spec = classifier.network.eval(), classifier.spec
    inputs = inputs_of(cfg.data, spec)
    metadata = metadata_of(folder, cfg, inputs, spec)
    file = folder / EXPORTED[format] if output is None else expanded(output)
    with needs_extra(f"format={format}", "keras" if format == "keras" else "export"):
        if format == "html":
            content = drawing_page(network, spec, cfg, folder, weights).encode()
        elif format == "safetensors":
            from safetensors.torch import save

            weights_of = network.state_dict().items()  # a layer may have two names, and its weights any order in memory
            content = save({name: x.clone(memory_format=torch.contiguous_format) for name, x in weights_of}, metadata)
        elif format == "keras":
            content = keras_file(network, spec, inputs)
        else:
            content, difference, any_steps = program_file(format, network, inputs, metadata)
            lengths = f", and {spec.num_steps} and {2 * spec.num_steps} frames" if any_steps else ""
            compared = f"batches of 1 and 7{lengths}"
            log.info(f"probabilities differ from the network's by at most {difference:.1e}, for {compared}")
            if inputs.name != "images" and not any_steps:
                log.info(f"the file reads {inputs.name} of {spec.num_steps} frames only, as the network does")
    write_atomically(file, content)
    log.info(f"{file}  {file.stat().st_size:,} bytes")
    return file


def metadata_of(folder: Path, cfg: DictConfig, inputs: Inputs, spec: SequenceSpec) -> dict[str, str]:
    """Returns the metadata; `test_accuracy` is empty for a run that was interrupted, or tested in other orderings."""
    data = read_json(folder / PROVENANCE).get("data", {})  # a folder from somebody else may lack the file
    accuracy = str(read_results(folder).get("test/accuracy", ""))
    if inputs.name == "images":
        how = {"orderings": json.dumps(orderings_shown(cfg.data)), "grid": json.dumps(list(cfg.data.grid))}
        if not is_tested_as_shown(cfg.data):
            accuracy = ""
    elif inputs.name == "series":
        how = {"reading": json.dumps(series_format(cfg.data, spec))}
    else:
        form = clip_format(cfg.data, spec.frame_shape, spec.num_steps)
        grey = {"grey": GREY} if form["colours"] == "grey" else {}
        how = {"reading": json.dumps(form | grey | {"interpolation": "bilinear and antialiased, as Pillow's"})}
    values = "not standardized, which the network does" if inputs.name == "series" else "pixels divided by 255"
    return {
        inputs.name: f"float32 [batch, {', '.join(map(str, inputs.shape))}], {values}",
        "classes": str(spec.num_classes),
        "class_names": json.dumps(spec.class_names),
        **how,
        "test_accuracy": accuracy,
        "dataset": data.get("dataset", ""),
        "data_sha256": data.get("sha256", ""),
        "config": OmegaConf.to_yaml(cfg),
    }


def keras_file(network: nn.Module, spec: SequenceSpec, inputs: Inputs) -> bytes:
    os.environ.setdefault("KERAS_BACKEND", "torch")  # before the first import of Keras, whose default is TensorFlow
    from quadrant_lstm.run.keras_model import build_keras_model, copy_to_keras, largest_difference, sizes_of_network

    model = build_keras_model(sizes_of_network(network), spec)
    copy_to_keras(network, model)
    log.info(f"logits differ from the network's by at most {largest_difference(model, network, inputs):.1e}")
    if inputs.name != "images":
        log.info(f"the model reads {spec.num_steps} real frames; for shorter {inputs.name}, write format=onnx")
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "network.keras"))
        return Path(folder, "network.keras").read_bytes()

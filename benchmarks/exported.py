"""Compares the exported programs of the question's network with the network itself, from images to probabilities, in
fp32, each in a process of its own.
"""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Process, Ways, table
from benchmarks.question import our_network
from quadrant_lstm.data.orderings import ORDERINGS, QUADRANTS
from quadrant_lstm.errors import needs_extra
from quadrant_lstm.run.exported_program import ToProbabilities, cut_images, program_file

CALLS = {1: 2048, 64: 32, 512: 4}  # in each measurement, by the size of the batch
FORMATS = {"the network in PyTorch": None, "`format=onnx`": "onnx", "`format=torch`": "torch"}


def tables(out: Path, rounds: int = 15) -> Iterator[str]:
    with needs_extra("exported", "export"):
        import onnxruntime  # noqa: F401
    processes = {name: Process(Classification, format) for name, format in FORMATS.items()}
    cases: dict[str, Ways] = {
        str(batch): {name: partial(process.step, "classify", batch, calls) for name, process in processes.items()}
        for batch, calls in CALLS.items()
    }
    yield from table("images", cases.items(), rounds)


class Classification:
    def __init__(self, format: str | None):
        network, inputs = our_network().eval(), cut_images((1, 28, 28), ORDERINGS, QUADRANTS)
        content = program_file(format, network, inputs, {}).content if format else b""
        self.compute: Any = ToProbabilities(network, inputs).eval()
        if format == "torch":
            self.compute = torch.export.load(io.BytesIO(content)).module()
        elif format == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            self.compute = lambda images: session.run(None, {"images": images.numpy()})

    @torch.inference_mode()
    def classify(self, batch: int, calls: int) -> None:
        images = torch.rand(batch, 1, 28, 28)
        for _ in range(calls):
            self.compute(images)

"""Measures the exported programs of the question's network on this machine, beside the network itself.

python -m pip install -e ".[export]" && python -m quadrant_lstm.benchmark.exported       about a minute

From images to probabilities, in fp32. The network in PyTorch and the two programs have a process each and take turns in
every round; a first round warms up and does not count. A cell holds the median time, the median ratio to the first
column, and the range of the middle half of the ratios. Writes exported.md.
"""

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context

import torch
from torch import Tensor

from quadrant_lstm.benchmark.command import new_parser, write_page
from quadrant_lstm.benchmark.peers import ours, some_orderings
from quadrant_lstm.benchmark.report import Rounds, row, times
from quadrant_lstm.benchmark.ways import measure
from quadrant_lstm.benchmark.worker import discard_output
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.config.check import check_value
from quadrant_lstm.data.orderings import QUADRANTS
from quadrant_lstm.errors import needs_extra
from quadrant_lstm.kinds import AtLeastTwo
from quadrant_lstm.processes.launch import prepare_for_training
from quadrant_lstm.run.exported_program import ToProbabilities, cut_images, program_file

BATCHES = (1, 64, 512)
NETWORK, ONNX, TORCH = "the network in PyTorch", "format=onnx", "format=torch"
QUESTION_INPUTS = cut_images((1, 28, 28), some_orderings(4), QUADRANTS)
NUM_IMAGES = 2048  # at least, in each measurement

compute: Callable[[Tensor], object]  # in the process of a way


def main() -> None:
    options = new_parser(__doc__, rounds=15).parse_args()
    check_value("--rounds", options.rounds, AtLeastTwo)
    with needs_extra("benchmark", "export"):
        import onnxruntime  # noqa: F401
    prepare_for_training()  # sets the number of threads
    write_page(options.out, "exported", table(options.rounds))


def table(rounds: int) -> Iterator[str]:
    measured = measure_programs(rounds)
    yield row("images", NETWORK, f"`{ONNX}`", f"`{TORCH}`")
    yield "|---|---|---|---|"
    for batch in BATCHES:
        yield row(str(batch), *times(measured[batch], NETWORK, [ONNX, TORCH]))


def measure_programs(rounds: int) -> dict[int, Rounds]:
    """Returns the milliseconds of a batch in each way, by the size of the batch."""
    with ExitStack() as stack:
        processes = {name: stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))) for name in WAYS}
        for name, process in processes.items():
            process.submit(build, name).result()

        def time_elsewhere(name: str, batch: int) -> float:
            return processes[name].submit(time_batch, batch).result()

        return {
            batch: measure({name: partial(time_elsewhere, name, batch) for name in WAYS}, rounds) for batch in BATCHES
        }


def build(name: str) -> None:
    global compute
    discard_output()
    prepare_for_training()
    compute = WAYS[name]()


def time_batch(batch: int) -> float:
    """Returns seconds."""
    images, calls = torch.rand(batch, 1, 28, 28), -(-NUM_IMAGES // batch)
    compute(images)
    start = time.perf_counter()
    for _ in range(calls):
        compute(images)
    return (time.perf_counter() - start) / calls


def the_network() -> Callable[[Tensor], object]:
    return torch.inference_mode()(ToProbabilities(ours(4), QUESTION_INPUTS).eval())


def the_onnx_file() -> Callable[[Tensor], object]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file_of("onnx"), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})


def the_torch_file() -> Callable[[Tensor], object]:
    return torch.inference_mode()(torch.export.load(io.BytesIO(file_of("torch"))).module())


def file_of(format: str) -> bytes:
    return program_file(format, ours(4).eval(), QUESTION_INPUTS, {}).content


WAYS = {NETWORK: the_network, ONNX: the_onnx_file, TORCH: the_torch_file}


if __name__ == "__main__":
    with handle_errors():
        main()

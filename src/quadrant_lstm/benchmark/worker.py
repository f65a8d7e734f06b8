"""Runs a peer in a process of its own, and calls its methods there."""

import os
import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

peer: Any = None  # in the process of a worker


class Measured(NamedTuple):
    seconds: float
    peak: int  # the largest memory of the process so far, in bytes


class Worker:
    """Starts the process. Raises the peer's exception if the peer cannot be built."""

    def __init__(self, name: str):
        self.executor = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            self.executor.submit(build, name).result()
        except BaseException:
            self.stop()
            raise

    def ask(self, method: str, batch: int, steps: int) -> Measured:
        return self.executor.submit(call, method, batch, steps).result()

    def tensorflow_finds_gpu(self) -> bool:
        return self.executor.submit(tensorflow_finds_gpu).result()

    def stop(self) -> None:
        self.executor.shutdown()


def build(name: str) -> None:
    global peer
    discard_output()
    if "TensorFlow" in name:
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # or TensorFlow takes all memory of the GPU
    from quadrant_lstm.benchmark.peers import PEERS

    peer = PEERS[name]()


def discard_output() -> None:
    """Discards what libraries print in this process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)


def tensorflow_finds_gpu() -> bool:
    import tensorflow

    return bool(tensorflow.config.list_physical_devices("GPU"))


def call(method: str, batch: int, steps: int) -> Measured:
    seconds = getattr(peer, method)(batch, steps)
    return Measured(seconds, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

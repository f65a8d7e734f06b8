"""Times several ways to compute the same, e.g. a training step of a layer, which take turns."""

import time
from collections.abc import Callable

from torch import Tensor

from quadrant_lstm.benchmark.report import Rounds

Way = Callable[[], Tensor | float]  # returns outputs that have gradients, or the seconds of a step elsewhere


def measure(ways: dict[str, Way], rounds: int) -> Rounds:
    """Returns the milliseconds of a step of each way in each round."""
    measured = Rounds()
    for number in range(1 + rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            elsewhere = run_step(way)
            seconds = time.perf_counter() - start if elsewhere is None else elsewhere
            if number:
                measured.add(name, 1000 * seconds)
    return measured


def run_step(way: Way) -> float | None:
    """Makes a training step. Returns its seconds if it was made elsewhere."""
    result = way()
    if not isinstance(result, Tensor):
        return result
    result.float().square().mean().backward()
    return None

"""What all comparisons share: ways that take turns, processes of their own, and the tables and pages of the results."""

import logging
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quadrant_lstm.run.provenance import processor
from quadrant_lstm.text import counted

Ways = dict[str, Callable[[], float]]  # each measures itself once
Cases = Iterable[tuple[str, Ways]]
Measured = dict[str, list[Any]]  # by the name of a way: what it returned in each round


def take_turns(ways: Ways, rounds: int, warm_up: bool = True) -> Measured:
    """Calls each way once per round. A first round that warms up does not count."""
    measured: Measured = {name: [] for name in ways}
    for number in range(rounds + warm_up):
        print(f"round {number + 1} of {rounds + warm_up}", end="\r", file=sys.stderr)
        for name, way in ways.items():
            measured[name].append(way())
    return {name: values[warm_up:] for name, values in measured.items()}


def milliseconds(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return 1000 * (time.perf_counter() - start)


class Process(ProcessPoolExecutor):
    """A process that calls functions, and methods of one object that stays there. It logs nothing."""

    def __init__(self, build: Callable[..., object] | None = None, *arguments: object):
        super().__init__(1, get_context("spawn"), initializer=logging.disable)
        if build:
            self.submit(keep, build, *arguments).result()

    def step(self, method: str, batch: int, steps: int) -> float:
        """Returns the milliseconds of one of the steps that the method makes."""
        return self.submit(time_method, method, batch, steps).result() / steps


kept: Any = None  # in a Process: its object


def keep(build: Callable[..., object], *arguments: object) -> None:
    global kept
    kept = build(*arguments)


def time_method(method: str, *arguments: object) -> float:
    return milliseconds(getattr(kept, method), *arguments)


def peak_memory() -> float:
    """Returns the largest memory of this process so far, in megabytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def table(title: str, cases: Cases, rounds: int, unit: str = "ms", warm_up: bool = True) -> Iterator[str]:
    """Returns lines of Markdown: one row per case, one column per way."""
    for number, (case, ways) in enumerate(cases):
        if not number:
            yield header(title, *ways)
        yield row(case, *cells(take_turns(ways, rounds, warm_up), unit))


def cells(measured: Measured, unit: str) -> Iterator[str]:
    base, *_ = measured.values()
    for values in measured.values():
        summary = (statistics.median(values), min(values), max(values))
        median, low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in summary)
        # the ratio in each round, because noise in a round affects both
        quartiles = np.quantile([one / other for one, other in zip(values, base, strict=True)], (0.5, 0.25, 0.75))
        ratio = "" if values is base else ", {:.2f} ({:.2f} to {:.2f})".format(*quartiles)
        yield f"{median} {unit} ({low} to {high}){ratio}"


def header(*titles: str) -> str:
    return f"{row(*titles)}\n|{'---|' * len(titles)}"


def row(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


def write_page(file: Path, lines: Iterable[str]) -> None:
    """Prints the lines, each once it is measured, and writes them below machine and command."""
    where = [processor(), *([torch.cuda.get_device_name()] if torch.cuda.is_available() else [])]
    threads = counted(torch.get_num_threads(), "thread")
    machine = f"{threads} on {', '.join(where)}, torch {torch.__version__}, {date.today()}"
    written = [f"{machine}; `python -m benchmarks {file.stem}`", ""]
    print(*written, sep="\n", flush=True)
    for line in lines:
        print(line, flush=True)
        written.append(line)
    file.write_text("\n".join(written) + "\n")
    print(f"\n{file}")

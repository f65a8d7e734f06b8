"""Measures SharedTiles on several grids beside every frame encoded in full, and what its plan of tiles predicts."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from quadrant_lstm.benchmark.report import row, times
from quadrant_lstm.benchmark.ways import Way, measure, run_step
from quadrant_lstm.data.orderings import frames_of, orderings_of
from quadrant_lstm.model.encoder import ConvEncoder
from quadrant_lstm.model.shared_tiles import SharedTiles
from quadrant_lstm.model.time_distributed import TimeDistributed

COMPARED = ("rows", "columns", "snake", "spiral")
TILED = (((2, 2), COMPARED), ((4, 4), COMPARED), ((7, 7), COMPARED), ((4, 4), ("rows", "reversed-rows")))


def shared_tiles_table(rounds: int) -> Iterator[str]:
    """`predicted` is the ratio of the floating-point operations of a training step, which the plan of tiles decides."""
    yield row("images of 112 x 112, grid", "orderings", "every frame", "shared tiles", "predicted")
    yield "|---|---|---|---|---|"
    for grid, orderings in TILED:
        ways = ways_to_share(grid, orderings)
        operations = {name: count_operations(way) for name, way in ways.items()}
        predicted = operations["shared"] / operations["full"]
        cells = times(measure(ways, rounds), "full", ["shared"])
        yield row(f"{grid[0]} x {grid[1]}", ", ".join(orderings), *cells, f"{predicted:.2f}")


def ways_to_share(grid: tuple[int, int], orderings: Sequence[str]) -> dict[str, Way]:
    permutations = orderings_of(orderings, grid)
    shared = SharedTiles(ConvEncoder(1, [32, 32], 3, 2), permutations, 112 // grid[0])
    full = TimeDistributed(shared.module)
    frames = frames_of(torch.randn(8, 1, 112, 112), permutations, grid)
    return {"full": lambda: full(frames), "shared": lambda: shared(frames)}


def count_operations(way: Way) -> int:
    with FlopCounterMode(display=False) as counter:
        run_step(way)
    return counter.get_total_flops()

"""Resolves orderings: permutations of the pieces of a grid, or names of scans. In plain Python, for checks of configs.

Pieces are numbered from 1 in reading order. The tables show at which step a scan reads each piece of a 4 x 4 grid:

    rows           columns        snake          spiral         hilbert
     1  2  3  4     1  5  9 13     1  2  3  4     1  2  3  4     1  2 15 16
     5  6  7  8     2  6 10 14     8  7  6  5    12 13 14  5     4  3 14 13
     9 10 11 12     3  7 11 15     9 10 11 12    11 16 15  6     5  8  9 12
    13 14 15 16     4  8 12 16    16 15 14 13    10  9  8  7     6  7 10 11

random:SEED is a permutation drawn with that seed. reversed-NAME reads the same path from its end.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from quadrant_lstm.kinds import Grid, OrderingsOrNames

Cells = Iterator[tuple[int, int]]  # row and column, from 0
One = TypeVar("One")  # an ordering, or its name
REVERSED, RANDOM = "reversed-", "random:"


def rows(height: int, width: int) -> Cells:
    return ((row, column) for row in range(height) for column in range(width))


def columns(height: int, width: int) -> Cells:
    return ((row, column) for column in range(width) for row in range(height))


def snake(height: int, width: int) -> Cells:
    for row in range(height):
        yield from ((row, column) for column in (range(width) if row % 2 == 0 else reversed(range(width))))


def spiral(height: int, width: int) -> Cells:
    """Clockwise, from the first piece inwards."""
    top, bottom, left, right = 0, height - 1, 0, width - 1
    while top <= bottom and left <= right:
        yield from ((top, column) for column in range(left, right + 1))
        yield from ((row, right) for row in range(top + 1, bottom + 1))
        if top < bottom and left < right:
            yield from ((bottom, column) for column in range(right - 1, left - 1, -1))
            yield from ((row, left) for row in range(bottom - 1, top, -1))
        top, bottom, left, right = top + 1, bottom - 1, left + 1, right - 1


def hilbert(height: int, width: int) -> Cells:
    """Raises ValueError for a grid on which there is none."""
    if height != width or height.bit_count() != 1:
        raise ValueError(
            f"hilbert needs a grid of 2 x 2, 4 x 4, 8 x 8, ..., not {height} x {width}; name another scan."
        )
    return quarter(0, 0, (height, 0), (0, width))


def quarter(row: int, column: int, along: tuple[int, int], across: tuple[int, int]) -> Cells:
    """Yields the cells of the square that the two vectors span from a corner: the path begins at that corner and ends
    at the corner to which `across` leads.
    """
    if sum(map(abs, along)) == 1:
        yield row + min(0, along[0], across[0]), column + min(0, along[1], across[1])
        return
    a, b, c, d = (size // 2 for size in (*along, *across))  # half of each vector
    yield from quarter(row, column, (c, d), (a, b))
    yield from quarter(row + a, column + b, (a, b), (c, d))
    yield from quarter(row + a + c, column + b + d, (a, b), (c, d))
    yield from quarter(row + a + 2 * c, column + b + 2 * d, (-c, -d), (-a, -b))


SCANS: dict[str, Callable[[int, int], Cells]] = {
    "rows": rows, "columns": columns, "snake": snake, "spiral": spiral, "hilbert": hilbert,
}  # fmt: skip
NAMES = f"{', '.join(SCANS)} or random:SEED, or reversed- and one of these"


def orderings_of(orderings: OrderingsOrNames, grid: Grid) -> list[tuple[int, ...]]:
    """Returns the permutations. Raises ValueError for what is neither one of the pieces nor a name."""
    return [ordering_of(ordering, grid) for ordering in orderings]


def shown_orderings(orderings: Sequence[One], train_orderings: Sequence[One] | None) -> Sequence[One]:
    """Returns the orderings that a network is trained in; of several sets, the first."""
    return (train_orderings or orderings)[: len(orderings)]


def ordering_of(ordering: Sequence[int] | str, grid: Grid) -> tuple[int, ...]:
    height, width = grid
    if isinstance(ordering, str):
        return named_ordering(ordering, height, width)
    num_pieces = height * width
    if sorted(ordering) != list(range(1, num_pieces + 1)):
        pieces = "".join(map(str, range(1, num_pieces + 1))) if num_pieces < 10 else f"1 to {num_pieces}"
        raise ValueError(f"{list(ordering)} is not a permutation of {pieces}; write one, or {NAMES}.")
    return tuple(ordering)


def named_ordering(name: str, height: int, width: int) -> tuple[int, ...]:
    scan = name.removeprefix(REVERSED)
    seed = scan.removeprefix(RANDOM)
    if scan in SCANS:
        pieces = [row * width + column + 1 for row, column in SCANS[scan](height, width)]
    elif seed != scan and seed.isdecimal():
        draw = random.Random(int(seed)).random
        pieces = sorted(range(1, height * width + 1), key=lambda _: draw())
    else:
        raise ValueError(f"{name} is not the name of an ordering; write {NAMES}.")
    return tuple(reversed(pieces) if name.startswith(REVERSED) else pieces)


def ordering_name(ordering: Sequence[int], grid: Grid) -> str:
    """Returns e.g. "1324" for [1, 3, 2, 4], and for ten pieces or more the name of the scan, or "7-6-16-..."."""
    if len(ordering) < 10:
        return "".join(map(str, ordering))
    for name in (prefix + scan for prefix in ("", REVERSED) for scan in SCANS):
        with suppress(ValueError):  # no such scan on this grid
            if ordering_of(name, grid) == tuple(ordering):
                return name
    return "-".join(map(str, ordering[:3])) + "-..."

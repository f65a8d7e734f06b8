import inspect
import itertools

import pytest

from quadrant_lstm.data.orderings import SCANS, ordering_name, orderings_of

TABLES = """
    rows           columns        snake          spiral         hilbert
     1  2  3  4     1  5  9 13     1  2  3  4     1  2  3  4     1  2 15 16
     5  6  7  8     2  6 10 14     8  7  6  5    12 13 14  5     4  3 14 13
     9 10 11 12     3  7 11 15     9 10 11 12    11 16 15  6     5  8  9 12
    13 14 15 16     4  8 12 16    16 15 14 13    10  9  8  7     6  7 10 11
"""


def table(ordering: tuple[int, ...], width: int) -> list[list[int]]:
    """Returns at which step each piece is read."""
    steps = [ordering.index(piece) + 1 for piece in range(1, len(ordering) + 1)]
    return [steps[start : start + width] for start in range(0, len(steps), width)]


def test_the_tables_of_the_module_are_those_of_the_code():
    assert TABLES in inspect.getdoc(orderings_of)
    names, *rows = TABLES.strip().splitlines()
    for number, name in enumerate(names.split()):
        expected = [list(map(int, row.split()))[4 * number : 4 * number + 4] for row in rows]
        (ordering,) = orderings_of([name], (4, 4))
        assert table(ordering, 4) == expected


@pytest.mark.parametrize("name", [*SCANS, "random:0", "random:7"])
@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (5, 1), (2, 2), (3, 4), (4, 3), (5, 5), (8, 8)])
def test_a_scan_reads_each_piece_once_and_reversed_from_its_end(name, grid):
    if name == "hilbert" and grid not in [(1, 1), (2, 2), (8, 8)]:
        with pytest.raises(ValueError, match=f"hilbert needs a grid of 2 x 2, .*, not {grid[0]} x {grid[1]}; "):
            orderings_of([name], grid)
        return
    ordering, backwards = orderings_of([name, f"reversed-{name}"], grid)
    assert sorted(ordering) == list(range(1, grid[0] * grid[1] + 1))
    assert ordering == backwards[::-1]


@pytest.mark.parametrize(("name", "grid"), [("snake", (3, 5)), ("spiral", (4, 5)), ("hilbert", (8, 8))])
def test_neighbours_in_a_path_touch(name, grid):
    (ordering,) = orderings_of([name], grid)
    cells = [divmod(piece - 1, grid[1]) for piece in ordering]
    assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in itertools.pairwise(cells))


def test_a_random_ordering_depends_on_its_seed_only():
    first, second, other = orderings_of(["random:1", "random:1", "random:2"], (4, 4))
    assert first == second != other
    assert orderings_of(["random:1"], (2, 2)) == [(1, 4, 3, 2)]  # in every version


@pytest.mark.parametrize("name", ["diagonal", "random", "random:x", "reversed", "reversed-reversed-rows", ""])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match="is not the name of an ordering; write rows, columns, snake, sp"):
        orderings_of([name], (2, 2))


def test_a_list_that_is_no_permutation_of_the_pieces_is_refused():
    with pytest.raises(ValueError, match=r"\[1, 2, 3, 4\] is not a permutation of 123456; write one, or rows"):
        orderings_of([[1, 2, 3, 4]], (2, 3))
    with pytest.raises(ValueError, match=r"is not a permutation of 1 to 16; write one, or rows"):
        orderings_of([[1, 2, 3, 4]], (4, 4))


@pytest.mark.parametrize(
    ("ordering", "grid", "name"),
    [
        ([1, 3, 2, 4], (2, 2), "1324"),
        ("snake", (4, 4), "snake"),
        ("reversed-hilbert", (4, 4), "reversed-hilbert"),
        ("columns", (5, 3), "columns"),
        ("random:1", (4, 4), "14-10-9-..."),
    ],
)
def test_an_ordering_is_named_by_its_pieces_or_its_scan(ordering, grid, name):
    assert ordering_name(orderings_of([ordering], grid)[0], grid) == name

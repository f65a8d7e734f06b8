"""Pieces of images, orderings of them, and the sequences that they make."""

import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from omegaconf import OmegaConf

from quadrant_lstm import ORDERINGS, sequences, split_quadrants
from quadrant_lstm.data.orderings import SCANS, occlude_piece, ordering_name, orderings_of, split_pieces
from tests.networks import orderings_on
from tests.scripts import ROOT

NUMBERED = torch.tensor([[1, 2], [3, 4]])[None, None]  # quadrants of one pixel, whose value is their number


def test_the_pieces_of_any_grid_are_numbered_in_reading_order():
    image = torch.tensor([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])[None, None]
    assert split_quadrants(image)[0, :, 0].tolist() == [[[n, n], [n, n]] for n in (1, 2, 3, 4)]
    image = torch.arange(6).view(1, 1, 2, 3)
    assert split_pieces(image, (2, 3)).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert split_pieces(image, (1, 3))[0, :, 0].tolist() == [[[0], [3]], [[1], [4]], [[2], [5]]]
    assert split_pieces(image, (2, 1))[0, :, 0].tolist() == [[[0, 1, 2]], [[3, 4, 5]]]
    with pytest.raises(ValueError, match="2 x 3, which cannot be split into 2 x 2 equal pieces; pad or crop them, or"):
        split_quadrants(image)


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 6])
def test_an_occluded_piece_is_blank_and_the_others_are_unchanged(piece):
    images = torch.rand(2, 3, 4, 6) + 1
    expected = split_pieces(images, (2, 3)).clone()
    expected[:, piece - 1] = 0
    assert torch.equal(split_pieces(occlude_piece(images, piece, (2, 3)), (2, 3)), expected)


def test_frames_are_those_of_the_question():
    # rows: steps; columns: orderings 1234, 4321, 1324, 4231
    assert sequences(NUMBERED)[0, :, 0, :, 0].tolist() == [[1, 4, 1, 4], [2, 3, 3, 2], [3, 2, 2, 3], [4, 1, 4, 1]]
    assert torch.equal(sequences(NUMBERED, ["rows", "reversed-rows", "columns", [4, 2, 3, 1]]), sequences(NUMBERED))
    assert sequences(torch.zeros(64, 1, 28, 28)).shape == (64, 4, 1, 56, 14)
    conf = OmegaConf.load(ROOT / "conf/data/mnist.yaml")
    assert OmegaConf.to_container(conf.orderings) == [list(ordering) for ordering in ORDERINGS]


def slow_sequences(images, orderings, grid):
    """Splits and stacks with loops, after the table of the question."""
    samples = []
    for image in images:
        rows = [row.chunk(grid[1], dim=2) for row in image.chunk(grid[0], dim=1)]
        pieces = [piece for row in rows for piece in row]
        steps = range(len(pieces))
        samples.append([torch.cat([pieces[ordering[step] - 1] for ordering in orderings], dim=1) for step in steps])
    return torch.stack([torch.stack(steps) for steps in samples])


@settings(deadline=None)
@given(data=st.data(), grid=st.tuples(st.integers(1, 4), st.integers(1, 4)), sizes=st.tuples(*[st.integers(1, 4)] * 4))
def test_any_orderings_of_any_grid_equal_a_loop(data, grid, sizes):
    batch, channels, height, width = sizes
    orderings = data.draw(orderings_on(grid))
    images = torch.randint(0, 256, (batch, channels, grid[0] * height, grid[1] * width), dtype=torch.uint8)
    assert torch.equal(sequences(images, orderings, grid), slow_sequences(images, orderings, grid))


@pytest.mark.parametrize("name", [*SCANS, "random:7"])
@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (5, 1), (3, 4), (4, 3), (8, 8)])
def test_a_scan_reads_each_piece_once_and_reversed_from_its_end(name, grid):
    if name == "hilbert" and grid[0] != grid[1]:
        with pytest.raises(ValueError, match=f"hilbert needs a grid of 2 x 2, .*, not {grid[0]} x {grid[1]}; "):
            orderings_of([name], grid)
        return
    ordering, backwards = orderings_of([name, f"reversed-{name}"], grid)
    assert sorted(ordering) == list(range(1, grid[0] * grid[1] + 1))
    assert ordering == backwards[::-1]
    if name in ("snake", "spiral", "hilbert"):  # neighbours in a path touch
        cells = [divmod(piece - 1, grid[1]) for piece in ordering]
        assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in itertools.pairwise(cells))


def test_a_random_ordering_depends_on_its_seed_only():
    first, second, other = orderings_of(["random:1", "random:1", "random:2"], (4, 4))
    assert first == second != other
    assert orderings_of(["random:1"], (2, 2)) == [(1, 4, 3, 2)]  # in every version


@pytest.mark.parametrize(
    ("ordering", "grid", "message"),
    [
        ([1, 2, 3, 3], (2, 2), r"\[1, 2, 3, 3\] is not a permutation of 1234; write one, or rows, columns"),
        ([1, 2, 3, 4], (2, 3), "is not a permutation of 123456"),
        ([1, 2, 3, 4], (4, 4), "is not a permutation of 1 to 16"),
        *((name, (2, 2), f"{name} is not the name of an ordering; write") for name in ("random:x", "reversed", "")),
    ],
)
def test_what_is_no_ordering_is_refused(ordering, grid, message):
    with pytest.raises(ValueError, match=message):
        orderings_of([ordering], grid)


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

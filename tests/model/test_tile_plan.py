import itertools

import hypothesis.strategies as st
from hypothesis import given, settings

from quadrant_lstm import ORDERINGS
from quadrant_lstm.model.encoder import ConvEncoder
from quadrant_lstm.model.shared_tiles import pieces_between_seams, plan_tiles
from tests.networks import ALL_ORDERINGS


def test_the_question_has_three_tiles_of_22_rows_and_one_of_14():
    tiles, rows = plan_tiles(ORDERINGS, 14, ConvEncoder(1, [32, 32], 3, 2))
    image = {number: list(range(14 * number - 14, 14 * number)) for number in (1, 2, 3, 4)}
    # step 1 stacks 1, 4, 1, 4; step 2: 2, 3, 3, 2; step 3: 3, 2, 2, 3; step 4: 4, 1, 4, 1
    expected = [
        image[4][10:] + image[1] + image[4][:4],  # seam 41, quadrant 1, seam 14
        image[3][10:] + image[2] + image[2][:4],
        image[2][10:] + image[3] + image[3][:4],
        image[4],  # its seams, 14 and 41, are in the tile of quadrant 1
    ]
    assert tiles == expected
    seam_41, quadrant_1, seam_14, quadrant_4 = [0, 1], [2, 3, 4, 5, 6], [7, 8], [27, 28, 29, 30, 31]
    assert rows[0] == quadrant_1 + seam_14 + quadrant_4 + seam_41 + quadrant_1 + seam_14 + quadrant_4
    assert rows[3] == quadrant_4 + seam_41 + quadrant_1 + seam_14 + quadrant_4 + seam_41 + quadrant_1
    assert {row for step in rows for row in step} == set(range(32))
    assert sum(map(len, rows)) == 104


def test_with_all_orderings_each_quadrant_is_between_seams_and_eight_seams_remain():
    tiles, rows = plan_tiles(ALL_ORDERINGS, 14, ConvEncoder(1, [32, 32], 3, 2))
    assert [len(tile) for tile in tiles] == 4 * [4 + 14 + 4] + 8 * [4 + 4]  # 16 seams: a step also repeats quadrants
    assert {row for step in rows for row in step} == set(range(4 * 5 + 16 * 2))


PAIRS = st.tuples(st.integers(0, 3), st.integers(0, 3))


@settings(deadline=None)
@given(st.lists(PAIRS, unique=True, max_size=8))
def test_no_plan_has_two_more_pieces_between_seams(seams):
    def choices(quadrant):
        above, below = ([seam for seam in seams if seam[side] == quadrant] for side in (1, 0))
        return [(), *((one, other) for one in above for other in below if one != other)]

    def used(chosen):
        return [seam for both in chosen for seam in both]

    combinations = map(used, itertools.product(*map(choices, range(4))))
    max_seams = max(len(chosen) for chosen in combinations if len(chosen) == len(set(chosen)))
    between = pieces_between_seams(seams, 4)
    assert 2 * len(between) == len(set(used(between.values()))) >= max_seams - 2
    assert all(above[1] == quadrant == below[0] for quadrant, (above, below) in between.items())

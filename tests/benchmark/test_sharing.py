import torch

from quadrant_lstm.benchmark.tiles import COMPARED, count_operations, ways_to_share


def test_shared_tiles_compute_the_same_with_fewer_operations():
    ways = ways_to_share((4, 4), COMPARED)
    torch.testing.assert_close(ways["shared"](), ways["full"](), rtol=1e-4, atol=1e-4)
    assert 0.35 < count_operations(ways["shared"]) / count_operations(ways["full"]) < 0.45

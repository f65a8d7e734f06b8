import pytest
import torch

from quadrant_lstm import sequences
from quadrant_lstm.benchmark.conv_lstm import ways_to_convolve
from quadrant_lstm.benchmark.layers import ways_to_encode
from quadrant_lstm.benchmark.peers import Plain, ours, some_orderings
from quadrant_lstm.benchmark.worker import Worker


@pytest.mark.parametrize("num_orderings", [4, 8])
def test_ours_and_plain_pytorch_are_the_same_network(num_orderings):
    torch.manual_seed(0)
    expected, network = Plain(num_orderings).eval(), ours(num_orderings).eval()
    network.load_state_dict(dict(zip(network.state_dict(), expected.state_dict().values(), strict=True)))
    frames = sequences(torch.rand(3, 1, 28, 28), some_orderings(num_orderings))
    torch.testing.assert_close(expected(frames), network(frames))


def test_a_peer_runs_in_its_own_process():
    worker = Worker("this project, fp32")
    try:
        for method in ("train", "infer"):
            seconds, peak = worker.ask(method, 8, 2)
            assert 0 < seconds < 60
            assert peak > 1e8
    finally:
        worker.stop()


def test_a_peer_that_cannot_be_built_raises_the_reason():
    with pytest.raises(KeyError, match="nobody"):
        Worker("nobody")


def test_every_way_to_compute_a_layer_gives_the_same():
    encoded = ways_to_encode(clips=2, steps=3, size=12, filters=4)
    maps = ways_to_convolve(clips=2, steps=3, size=6, channels=1, hidden=2)
    torch.testing.assert_close(encoded["layer"](), encoded["fold"]())
    torch.testing.assert_close(encoded["layer"](), encoded["loop"]())
    every_second = torch.tensor([[1, 0, 1], [0, 1, 0]]).unsqueeze(2)
    torch.testing.assert_close(encoded["half masked"](), encoded["layer"]() * every_second)
    torch.testing.assert_close(maps["layer"](), maps["convolved together"]())

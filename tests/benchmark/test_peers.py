import pytest
import torch

from quadrant_lstm import ORDERINGS, sequences
from quadrant_lstm.benchmark.peers import ALL_ORDERINGS, Plain, ours
from quadrant_lstm.benchmark.worker import Failed, Worker


@pytest.mark.parametrize("num_orderings", [4, 8])
def test_ours_and_plain_pytorch_are_the_same_network(num_orderings):
    torch.manual_seed(0)
    orderings = ORDERINGS if num_orderings == 4 else ALL_ORDERINGS[:num_orderings]
    one, other = Plain(num_orderings).eval(), ours(num_orderings).eval()
    other.load_state_dict(dict(zip(other.state_dict(), one.state_dict().values(), strict=True)))
    frames = sequences(torch.rand(3, 1, 28, 28), orderings)
    torch.testing.assert_close(one(frames), other(frames))


def test_a_peer_answers_from_its_own_process():
    worker = Worker("ours, fp32")
    try:
        for do in ("train", "infer"):
            answer = worker.ask(do, 8, 2)
            assert 0 < answer["seconds"] < 60
            assert answer["peak"] > 1e8
    finally:
        worker.stop()


def test_a_peer_that_cannot_be_built_says_why():
    with pytest.raises(Failed, match="KeyError: 'nobody'"):
        Worker("nobody")

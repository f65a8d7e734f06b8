import pytest
import torch

from quadrant_lstm import ORDERINGS, sequences
from quadrant_lstm.benchmark.peers import ALL_ORDERINGS, Plain, ours
from quadrant_lstm.benchmark.worker import Worker, WorkerError


@pytest.mark.parametrize("num_orderings", [4, 8])
def test_ours_and_plain_pytorch_are_the_same_network(num_orderings):
    torch.manual_seed(0)
    orderings = ORDERINGS if num_orderings == 4 else ALL_ORDERINGS[:num_orderings]
    expected, network = Plain(num_orderings).eval(), ours(num_orderings).eval()
    network.load_state_dict(dict(zip(network.state_dict(), expected.state_dict().values(), strict=True)))
    frames = sequences(torch.rand(3, 1, 28, 28), orderings)
    torch.testing.assert_close(expected(frames), network(frames))


def test_a_peer_runs_in_its_own_process():
    worker = Worker("ours, fp32")
    try:
        for do in ("train", "infer"):
            answer = worker.ask(do, 8, 2)
            assert 0 < answer["seconds"] < 60
            assert answer["peak"] > 1e8
    finally:
        worker.stop()


def test_a_peer_that_cannot_be_built_raises_the_reason():
    with pytest.raises(WorkerError, match="KeyError: 'nobody'"):
        Worker("nobody")

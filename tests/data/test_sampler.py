import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from quadrant_lstm.data.sampler import EpochOrder, epoch_seed


def epoch(order: EpochOrder, number: int) -> list[int]:
    order.set_epoch(number)
    return torch.cat(list(order)).tolist()


def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide():
    indices = torch.arange(100, 200)
    first, again = (epoch(EpochOrder(indices, 16, seed=1), 3) for _ in range(2))
    assert first == again
    assert sorted(first) == list(range(100, 200))
    assert first != epoch(EpochOrder(indices, 16, seed=1), 4)
    assert first != epoch(EpochOrder(indices, 16, seed=2), 3)


def test_without_a_seed_the_order_stays():
    assert epoch(EpochOrder(torch.arange(10), 4, seed=None), 7) == list(range(10))


def test_batches_are_full_but_the_last():
    assert [len(batch) for batch in EpochOrder(torch.arange(150), 64, seed=1)] == [64, 64, 22]


@settings(deadline=None)
@given(
    images=st.integers(1, 90), batch_size=st.integers(1, 20), num_ranks=st.integers(1, 5), seed=st.none() | st.just(1)
)
def test_processes_together_see_each_image_once(images, batch_size, num_ranks, seed):
    ranks = [EpochOrder(torch.arange(images), batch_size, seed, rank, num_ranks) for rank in range(num_ranks)]
    batches = [list(rank) for rank in ranks]
    seen = torch.cat([batch for rank in batches for batch in rank])
    assert sorted(seen.tolist()) == list(range(images))
    assert [len(rank) for rank in ranks] == [len(rank) for rank in batches]
    if images >= num_ranks:
        assert len({len(rank) for rank in ranks}) == 1  # or gradients would wait for a process that is done


def test_two_processes_share_the_batches_of_one():
    one = list(EpochOrder(torch.arange(64), 16, seed=1))
    two = [list(EpochOrder(torch.arange(64), 8, seed=1, rank=rank, num_ranks=2)) for rank in range(2)]
    for batch, *halves in zip(one, *two, strict=True):
        assert sorted(batch.tolist()) == sorted(torch.cat(halves).tolist())


def test_streams_of_a_seed_differ():
    assert len({epoch_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400

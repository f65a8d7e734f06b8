import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from quadrant_lstm.data.datamodule import EpochSampler, epoch_seed


def indices_of_epoch(sampler: EpochSampler, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return torch.cat(list(sampler)).tolist()


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch():
    indices = torch.arange(100, 200)
    first, repeated = (indices_of_epoch(EpochSampler(indices, 16, seed=1), 3) for _ in range(2))
    assert first == repeated
    assert sorted(first) == list(range(100, 200))
    assert first != indices_of_epoch(EpochSampler(indices, 16, seed=1), 4)
    assert first != indices_of_epoch(EpochSampler(indices, 16, seed=2), 3)


def test_without_a_seed_indices_are_not_shuffled_and_all_batches_but_the_last_are_full():
    batches = [batch.tolist() for batch in EpochSampler(torch.arange(10), 4, seed=None)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(1, 20), st.integers(1, 5), st.none() | st.just(1))
def test_processes_together_see_each_image_once(images, batch_size, num_ranks, seed):
    samplers = [EpochSampler(torch.arange(images), batch_size, seed, rank, num_ranks) for rank in range(num_ranks)]
    batches = [list(sampler) for sampler in samplers]
    seen = torch.cat([batch for batches_of_rank in batches for batch in batches_of_rank])
    assert sorted(seen.tolist()) == list(range(images))
    assert list(map(len, samplers)) == list(map(len, batches))
    if images >= num_ranks:
        assert len(set(map(len, samplers))) == 1  # else a process would wait for gradients of another that has finished


def test_two_processes_split_the_batches_of_one():
    one = list(EpochSampler(torch.arange(64), 16, seed=1))
    two = [list(EpochSampler(torch.arange(64), 8, seed=1, rank=rank, num_ranks=2)) for rank in range(2)]
    for batch, *halves in zip(one, *two, strict=True):
        assert sorted(batch.tolist()) == sorted(torch.cat(halves).tolist())


def test_seeds_of_epochs_differ():
    assert len({epoch_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400

"""Draws the batches of an epoch, from its number and a seed, and divides them among processes.

The batches depend on nothing else, so a resumed run sees the same images as an uninterrupted one. Each process takes
every n-th index of a global batch. Together they see every image exactly once: none is repeated or dropped.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Sampler, TensorDataset


class EpochSampler(Sampler):
    """Yields batches of `batch_size` indices for process `rank` of `num_ranks`, shuffled every epoch if given a seed.

    All processes get the same number of batches if there are at least as many indices as processes.
    """

    def __init__(
        self, indices: Int64[Tensor, " images"], batch_size: int, seed: int | None, rank: int = 0, num_ranks: int = 1
    ):
        self.indices, self.batch_size, self.seed = indices, batch_size, seed
        self.rank, self.num_ranks = rank, num_ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch  # Lightning calls this before each epoch

    def __iter__(self) -> Iterator[Int64[Tensor, " batch"]]:
        indices = self.indices
        if self.seed is not None:
            generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
            indices = indices[torch.randperm(len(indices), generator=generator).to(indices.device)]
        for start, end in self.global_batches():
            if len(batch := indices[start + self.rank : end : self.num_ranks]):
                yield batch

    def __len__(self) -> int:
        return sum(end - start > self.rank for start, end in self.global_batches())

    def global_batches(self) -> list[tuple[int, int]]:
        """Returns the (start, end) of each batch of all processes together."""
        size = self.batch_size * self.num_ranks
        ends = [*range(size, len(self.indices), size), len(self.indices)]
        if len(ends) > 1 and ends[-1] - ends[-2] < self.num_ranks:
            del ends[-2]  # fewer images are left than processes
        return list(zip([0, *ends], ends, strict=False))


class BatchLoader:
    """Gathers each batch with one index_select per tensor. A DataLoader would cost a few per cent of the training step
    of a small network.
    """

    batch_sampler = None  # Lightning reads it

    def __init__(self, data: TensorDataset, sampler: EpochSampler):
        self.data, self.sampler = data, sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return (tuple(tensor.index_select(0, indices) for tensor in self.data.tensors) for indices in self.sampler)


def epoch_seed(seed: int, *stream: int) -> int:
    """Returns a seed for each epoch of a run, and for each process or clip in it."""
    return int(np.random.SeedSequence([seed, *stream]).generate_state(1)[0])

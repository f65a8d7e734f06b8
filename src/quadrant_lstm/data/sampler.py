"""(seed, epoch) -> the batches of an epoch.

The order depends on nothing else, so an interrupted run goes on with the images it would have seen. Several processes
take turns through each global batch: together they see every image exactly once, none padded, none dropped.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Sampler, TensorDataset


class EpochOrder(Sampler):
    """Batches of `batch_size` indices for process `rank` of `num_ranks`; shuffled anew each epoch if given a seed.

    Every process gets the same number of batches, as long as there are at least as many indices as processes.
    """

    def __init__(
        self, indices: Int64[Tensor, " images"], batch_size: int, seed: int | None, rank: int = 0, num_ranks: int = 1
    ):
        self.indices = indices
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.num_ranks = num_ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Int64[Tensor, " batch"]]:
        order = self.indices
        if self.seed is not None:
            generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
            order = order[torch.randperm(len(order), generator=generator).to(order.device)]
        for start, end in self.global_batches():
            if len(mine := order[start + self.rank : end : self.num_ranks]):
                yield mine

    def __len__(self) -> int:
        return sum(end - start > self.rank for start, end in self.global_batches())

    def global_batches(self) -> list[tuple[int, int]]:
        """The (start, end) of the batches of all processes together."""
        size = self.batch_size * self.num_ranks
        ends = [*range(size, len(self.indices), size), len(self.indices)]
        if len(ends) > 1 and ends[-1] - ends[-2] < self.num_ranks:
            del ends[-2]  # too few images are left for one a process
        return list(zip([0, *ends], ends, strict=False))


class Batches:
    """What Lightning takes for a DataLoader: a gather for each batch, and no more, where DataLoader's own work costs a
    small network a few per cent."""

    batch_sampler = None  # Lightning looks for one

    def __init__(self, data: TensorDataset, sampler: EpochOrder):
        self.data = data
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return (tuple(tensor.index_select(0, indices) for tensor in self.data.tensors) for indices in self.sampler)


def epoch_seed(seed: int, *stream: int) -> int:
    """An independent seed for each epoch (and process) of a run."""
    return int(np.random.SeedSequence([seed, *stream]).generate_state(1)[0])

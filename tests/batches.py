"""Reads and compares the batches of an epoch."""

import torch

from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.data.file_sequences import FileSequences


def epoch_of(data: FileSequences, epoch: int) -> list[Batch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def are_equal(batches: list[Batch], others: list[Batch]) -> bool:
    def content(batch: Batch) -> list[torch.Tensor]:
        return [*batch.unpadded(), batch.frames, batch.labels]

    pairs = zip(map(content, batches), map(content, others), strict=True)
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))

"""Reads batches of clips in worker processes.

The batches of an epoch, and where its long clips are cut, depend only on the seed and the number of the epoch.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from quadrant_lstm.data.clip_reader import ClipReader
from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.data.frame_cache import shared_memory
from quadrant_lstm.data.frames import SequenceSpec
from quadrant_lstm.data.sampler import EpochSampler
from quadrant_lstm.data.worker_loader import WorkerLoader
from quadrant_lstm.errors import UserError

PREFETCH = 2  # batches for each worker


def shape_of_slots(spec: SequenceSpec, batch_size: int, num_workers: int) -> tuple[int, ...]:
    """Returns the shape of the uint8 array in which a ClipLoader keeps batches: those that workers are writing, and the
    last three that it has yielded. The last batch of an epoch may have one clip more.
    """
    channels, height, width = spec.frame_shape
    return PREFETCH * num_workers + 3, batch_size + 1, spec.num_steps, height, width, channels


class Request(NamedTuple):
    slot: int  # that the frames are written to
    numbers: list[int]  # of the clips of a batch
    epoch: int | None  # in which long clips are cut at random; None cuts out their middle


class Answer(NamedTuple):
    slot: int
    labels: list[int]
    lengths: list[int]


class BatchReader(Dataset):
    """Maps a Request to an Answer, and writes the frames to a slot of memory that processes share.

    A DataLoader would share new memory for each batch. That costs a tenth of the time of decoding, and needs more of
    /dev/shm than most containers have.
    """

    def __init__(self, clips: ClipReader, shape: Sequence[int]):
        self.clips, self.slots = clips, shared_memory(math.prod(shape)).reshape(shape)

    def __getitem__(self, request: Request) -> Answer | UserError:
        slot, numbers, epoch = request
        try:
            return Answer(slot, *self.clips.read_batch(numbers, epoch, self.slots[slot, : len(numbers)]))
        except UserError as error:  # raised in a worker, it would get a traceback
            return error


class Requests(Sampler):
    def __init__(self, sampler: EpochSampler, num_slots: int):
        self.sampler, self.num_slots = sampler, num_slots

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Request]:
        epoch = None if self.sampler.seed is None else self.sampler.epoch
        return (Request(n % self.num_slots, batch.tolist(), epoch) for n, batch in enumerate(self.sampler))


class ClipLoader:
    """Yields batches that worker processes read. The workers remain from epoch to epoch. The frames of the last three
    batches are valid; those of earlier ones have been overwritten.
    """

    batch_sampler = None  # Lightning reads it

    def __init__(self, clips: ClipReader, sampler: EpochSampler, num_workers: int, pads: bool):
        self.sampler, self.pads = sampler, pads
        shape = shape_of_slots(clips.spec, sampler.batch_size, num_workers)
        self.reader = BatchReader(clips, shape)
        options: dict[str, Any] = {"sampler": Requests(sampler, num_slots=shape[0])}
        if num_workers:
            options |= {"prefetch_factor": PREFETCH, "persistent_workers": True}
        self.answers = WorkerLoader(
            self.reader, num_workers, batch_size=None, collate_fn=lambda answer: answer, **options
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        for answer in self.answers:
            if isinstance(answer, UserError):
                raise answer
            frames = self.reader.slots[answer.slot, : len(answer.labels)]
            yield to_batch(frames, answer.labels, answer.lengths if self.pads else None)


def to_batch(frames: np.ndarray, labels: Sequence[int], lengths: Sequence[int] | None) -> Batch:
    """Returns a batch of frames [clips, steps, height, width, channels]; its channels remain last in memory."""
    real = None if lengths is None else torch.tensor(lengths, dtype=torch.long)
    return Batch(torch.from_numpy(frames).movedim(4, 2), torch.tensor(labels, dtype=torch.long), real)

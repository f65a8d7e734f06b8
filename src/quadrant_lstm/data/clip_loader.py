"""Reads batches of clips in worker processes. Where long clips are cut depends only on the seed and the epoch."""

import math
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, frame_numbers, read_frames, steps_in
from quadrant_lstm.data.clip_index import Clip, Note
from quadrant_lstm.data.datamodule import Batch, EpochSampler, WorkerLoader, epoch_seed
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.errors import UserError

# Decoded frames in memory that the workers share
#
# The memory is used as clips are read.


def shared_memory(num_bytes: int) -> np.ndarray:
    """Returns zeros in uint8, which this process shares with those that it forks later."""
    return np.frombuffer(mmap.mmap(-1, max(1, num_bytes)), np.uint8, num_bytes)


class FrameCache:
    """Keeps clips of these shapes, in their order, as many as fit into `limit` bytes, so that the order of reading does
    not change which ones are kept. Workers must be forked from the process that makes the cache.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], limit: int):
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        ends = ends[ends <= limit]
        self.num_bytes = int(ends[-1]) if len(ends) else 0
        parts = np.split(shared_memory(self.num_bytes), ends)  # and an empty one at the end
        self.clips = [part.reshape(shape) for part, shape in zip(parts[:-1], shapes, strict=False)]
        self.is_filled = shared_memory(len(self.clips))

    def read(self, number: int, decode: Callable[[np.ndarray], None]) -> np.ndarray:
        """Returns all frames of a clip that is kept. The first time, `decode` writes them."""
        if not self.is_filled[number]:  # two workers may both fill it, with the same frames
            decode(self.clips[number])
            self.is_filled[number] = 1
        return self.clips[number]


# The frames of clips


class ClipReader:
    """Reads some of the frames of clips: every n-th, and of long clips as many as a network reads.

    The frames of the first clips are kept in memory: as many whole clips as fit into `cache_bytes`.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        notes: Mapping[Path, Note],
        frame_format: FrameFormat,
        frame_step: int,
        spec: SequenceSpec,
        seed: int,
        cache_bytes: int = 0,
    ):
        self.clips, self.frame_format, self.frame_step = clips, frame_format, frame_step
        self.spec, self.seed = spec, seed
        self.lengths = [steps_in(notes[clip.path].num_frames, frame_step) for clip in clips]
        channels, height, width = spec.frame_shape
        self.cache = FrameCache([(length, height, width, channels) for length in self.lengths], cache_bytes)

    def __len__(self) -> int:
        return len(self.clips)

    def read_batch(self, numbers: Sequence[int], epoch: int | None, out: np.ndarray) -> tuple[list[int], list[int]]:
        """Writes the frames to `out`, uint8 [clips, steps, height, width, channels], and returns the labels and the
        numbers of real frames.
        """
        lengths = [min(self.lengths[number], self.spec.num_steps) for number in numbers]
        for frames, number, length in zip(out, numbers, lengths, strict=True):
            self.read_clip(number, self.start(number, length, epoch), frames[:length])
            frames[length:] = 0
        return [self.clips[number].label for number in numbers], lengths

    def start(self, number: int, length: int, epoch: int | None) -> int:
        """Returns where a clip is cut: at random, by the seed and the epoch, or in its middle without an epoch."""
        spare = self.lengths[number] - length
        if epoch is None:
            return spare // 2
        return epoch_seed(self.seed, epoch, number) % (spare + 1)

    def read_clip(self, number: int, start: int, out: np.ndarray) -> None:
        path = self.clips[number].path
        try:
            if number < len(self.cache.clips):
                every = frame_numbers(0, self.lengths[number], self.frame_step)
                decode = partial(read_frames, path, self.frame_format, every)
                out[:] = self.cache.read(number, decode)[start : start + len(out)]
            else:
                read_frames(path, self.frame_format, frame_numbers(start, len(out), self.frame_step), out)
        except BrokenClip as error:
            raise UserError(f"{error}, but could when this command started; restore it, and resume the run.") from error


# The loader


PREFETCH = 2  # batches for each worker


def shape_of_slots(spec: SequenceSpec, batch_size: int, num_workers: int) -> tuple[int, ...]:
    """Returns the shape of the uint8 array to which workers write batches: those that they read ahead, and the one that
    is copied. The last batch of an epoch may have one clip more.
    """
    channels, height, width = spec.frame_shape
    return PREFETCH * num_workers + 1, batch_size + 1, spec.num_steps, height, width, channels


class Request(NamedTuple):
    slot: int  # that the frames are written to
    numbers: list[int]  # of the clips of a batch
    epoch: int | None  # in which long clips are cut at random; None cuts out their middle


class BatchReader(Dataset):
    """Maps a Request to labels and lengths, and writes the frames to a slot of memory that processes share.

    A DataLoader would share new memory for each batch, of which most containers have too little in /dev/shm; through a
    pipe, cached frames would take as long as decoding them.
    """

    def __init__(self, clips: ClipReader, slots: np.ndarray):
        self.clips, self.slots = clips, slots

    def __getitem__(self, request: Request) -> tuple[list[int], list[int]] | UserError:
        slot, numbers, epoch = request
        try:
            return self.clips.read_batch(numbers, epoch, self.slots[slot, : len(numbers)])
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
    """Yields batches that worker processes read. The workers remain from epoch to epoch."""

    batch_sampler = None  # Lightning reads it

    def __init__(self, clips: ClipReader, sampler: EpochSampler, num_workers: int, pads: bool):
        self.sampler, self.pads = sampler, pads
        shape = shape_of_slots(clips.spec, sampler.batch_size, num_workers)
        self.slots = shared_memory(math.prod(shape)).reshape(shape)
        options: dict[str, Any] = {"prefetch_factor": PREFETCH, "persistent_workers": True} if num_workers else {}
        options |= {"sampler": Requests(sampler, len(self.slots)), "collate_fn": lambda answer: answer}
        self.answers = WorkerLoader(BatchReader(clips, self.slots), num_workers, batch_size=None, **options)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        for number, answer in enumerate(self.answers):  # in the order of the requests
            if isinstance(answer, UserError):
                raise answer
            labels, lengths = answer
            frames = self.slots[number % len(self.slots), : len(labels)].copy()
            yield to_batch(frames, labels, lengths if self.pads else None)


def to_batch(frames: np.ndarray, labels: Sequence[int], lengths: Sequence[int] | None) -> Batch:
    """Returns a batch of frames [clips, steps, height, width, channels]; its channels remain last in memory."""
    real = None if lengths is None else torch.tensor(lengths, dtype=torch.long)
    return Batch(torch.from_numpy(frames).movedim(4, 2), torch.tensor(labels, dtype=torch.long), real)

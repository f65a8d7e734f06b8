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

# Decoded frames in memory that the workers share, up to a limit
#
# Clips are kept in the order of the folder, so that the order of reading does not change which ones are kept. The
# memory is used as clips are read.


def shared_memory(num_bytes: int) -> np.ndarray:
    """Returns zeros in uint8, which this process shares with those that it forks later."""
    return np.frombuffer(mmap.mmap(-1, max(1, num_bytes)), np.uint8, num_bytes)


class FrameCache:
    """`sizes` are the bytes of each clip. Workers must be forked from the process that makes the cache."""

    def __init__(self, sizes: Sequence[int], limit: int):
        ends = np.cumsum(sizes)
        self.count = int(np.searchsorted(ends, limit, side="right"))  # of the clips that are kept
        self.starts = np.concatenate([[0], ends])[: self.count]
        self.num_bytes = int(ends[self.count - 1]) if self.count else 0
        self.memory, self.is_filled = shared_memory(self.num_bytes), shared_memory(self.count)

    def holds(self, number: int) -> bool:
        """Tells whether the clip is one of those that are kept."""
        return number < self.count

    def read(self, number: int, shape: Sequence[int], decode: Callable[[np.ndarray], None]) -> np.ndarray:
        """Returns all frames of a clip that is kept, uint8 in that shape. The first time, `decode` writes them."""
        start = int(self.starts[number])
        frames = self.memory[start : start + int(np.prod(shape))].reshape(shape)
        if not self.is_filled[number]:  # two workers may both fill it, with the same frames
            decode(frames)
            self.is_filled[number] = 1
        return frames


# The frames of a batch


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
        self.cache = FrameCache([math.prod(self.stored_shape(number)) for number in range(len(clips))], cache_bytes)

    def __len__(self) -> int:
        return len(self.clips)

    def read_batch(self, numbers: Sequence[int], epoch: int | None, out: np.ndarray) -> tuple[list[int], list[int]]:
        """Writes the frames to `out`, uint8 [clips, steps, height, width, channels], and returns the labels and the
        numbers of real frames. Long clips are cut at random, by the seed and the epoch; in their middle without an
        epoch.
        """
        lengths = [min(self.lengths[number], self.spec.num_steps) for number in numbers]
        for frames, number, length in zip(out, numbers, lengths, strict=True):
            self.read_clip(number, self.start(number, length, epoch), frames[:length])
            frames[length:] = 0
        return [self.clips[number].label for number in numbers], lengths

    def start(self, number: int, length: int, epoch: int | None) -> int:
        spare = self.lengths[number] - length
        if epoch is None:
            return spare // 2
        return epoch_seed(self.seed, epoch, number) % (spare + 1)

    def read_clip(self, number: int, start: int, out: np.ndarray) -> None:
        path = self.clips[number].path
        try:
            if self.cache.holds(number):
                every = frame_numbers(0, self.lengths[number], self.frame_step)
                decode = partial(read_frames, path, self.frame_format, every)
                out[:] = self.cache.read(number, self.stored_shape(number), decode)[start : start + len(out)]
            else:
                read_frames(path, self.frame_format, frame_numbers(start, len(out), self.frame_step), out)
        except BrokenClip as error:
            raise UserError(f"{error}, but could when this command started; restore it, and resume the run.") from error

    def stored_shape(self, number: int) -> tuple[int, ...]:
        channels, height, width = self.spec.frame_shape
        return self.lengths[number], height, width, channels


# The loader


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

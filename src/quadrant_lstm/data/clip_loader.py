"""Reads batches of clips in worker processes.

The batches of an epoch, and where its long clips are cut, depend only on the seed and the number of the epoch.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from quadrant_lstm.data.clip_files import BrokenClip, FrameFormat, frame_numbers, read_frames, steps_in
from quadrant_lstm.data.clip_folder import Clip
from quadrant_lstm.data.clip_index import Note, WorkerLoader
from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.data.frame_cache import FrameCache, shared_memory
from quadrant_lstm.data.frames import SequenceSpec
from quadrant_lstm.data.sampler import EpochSampler, epoch_seed
from quadrant_lstm.errors import UserError

PREFETCH = 2  # batches for each worker


def shape_of_slots(spec: SequenceSpec, batch_size: int, num_workers: int) -> tuple[int, ...]:
    """Returns the shape of the batches that a ClipLoader keeps in memory, in bytes: those that workers write to, and
    the last three. The last batch of an epoch may have one clip more.
    """
    channels, height, width = spec.frame_shape
    return PREFETCH * num_workers + 3, batch_size + 1, spec.num_steps, height, width, channels


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
            options |= {"num_workers": num_workers, "prefetch_factor": PREFETCH, "persistent_workers": True}
            options["multiprocessing_context"] = "fork"
        self.answers = WorkerLoader(self.reader, batch_size=None, collate_fn=lambda answer: answer, **options)

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

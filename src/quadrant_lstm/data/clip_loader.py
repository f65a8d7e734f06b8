"""Reads batches of clips in worker processes. Where long clips are cut depends only on the seed and the epoch."""

import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, Note, read_frames
from quadrant_lstm.data.clip_index import Clip
from quadrant_lstm.data.datamodule import Batch, EpochSampler, WorkerLoader, epoch_seed
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.errors import UserError

PREFETCH = 2  # batches for each worker


def shared_memory(*shape: int) -> np.ndarray:
    """Returns zeros in uint8, which this process shares with those that it forks later. Memory is used when written."""
    size = math.prod(shape)
    return np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8, size).reshape(shape)


class ClipReader:
    """Reads some of the frames of clips: every n-th, and of long clips as many as a network reads.

    Frames are uint8 [clips, steps, height, width, channels]. The first clips are kept whole, as many as fit into
    `cache_bytes`, whatever the order in which they are read. Their memory is shared with workers that are forked from
    the process that makes the reader.
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
        self.clips, self.frame_format, self.seed, self.num_steps = clips, frame_format, seed, spec.num_steps
        numbers = {path: range(0, note.num_frames, frame_step) for path, note in notes.items()}
        self.numbers = [numbers[clip.path] for clip in clips]  # of the frames
        self.key_frames = [notes[clip.path].key_frames for clip in clips]
        self.pads = min(map(len, numbers.values())) < spec.num_steps
        channels, height, width = spec.frame_shape
        self.frame_shape = height, width, channels
        ends = np.cumsum(list(map(len, self.numbers)))
        ends = ends[ends * math.prod(self.frame_shape) <= cache_bytes]
        self.kept = np.split(shared_memory(int(ends.max(initial=0)), *self.frame_shape), ends)[:-1]
        self.is_read = shared_memory(len(self.kept))

    def __len__(self) -> int:
        return len(self.clips)

    def length(self, number: int) -> int:
        return min(len(self.numbers[number]), self.num_steps)

    def start(self, number: int, epoch: int | None) -> int:
        """Returns where a clip is cut: at random, by the seed and the epoch, or in its middle without an epoch."""
        spare = len(self.numbers[number]) - self.length(number)
        return spare // 2 if epoch is None else epoch_seed(self.seed, epoch, number) % (spare + 1)

    def read(self, clips: Sequence[int], epoch: int | None, out: np.ndarray) -> None:
        """Writes the frames of the clips with these numbers to `out`."""
        for frames, number in zip(out, clips, strict=True):
            start, length = self.start(number, epoch), self.length(number)
            if number < len(self.kept):
                if not self.is_read[number]:  # two workers may both read it
                    self.decode(number, 0, self.kept[number])
                    self.is_read[number] = 1
                frames[:length] = self.kept[number][start : start + length]
            else:
                self.decode(number, start, frames[:length])
            frames[length:] = 0

    def decode(self, number: int, start: int, out: np.ndarray) -> None:
        try:
            frames = self.numbers[number][start : start + len(out)]
            read_frames(self.clips[number].path, self.frame_format, frames, out, self.key_frames[number])
        except BrokenClip as error:
            raise UserError(f"{error}, but could when this command started; restore it, and resume the run.") from error

    def batch(self, clips: Sequence[int], frames: np.ndarray) -> Batch:
        """Returns a batch of frames that were read; its channels remain last in memory."""
        labels = torch.tensor([self.clips[number].label for number in clips])
        lengths = torch.tensor([self.length(number) for number in clips]) if self.pads else None
        return Batch(torch.from_numpy(frames).movedim(4, 2), labels, lengths)


class ClipLoader:
    """Yields batches that worker processes, which remain from epoch to epoch, write to slots of memory that they share
    with this process.

    A DataLoader would share new memory for each batch, of which most containers have too little in /dev/shm; through a
    pipe, cached frames would take as long as decoding them.
    """

    batch_sampler = None  # Lightning reads it

    def __init__(self, reader: ClipReader, sampler: EpochSampler, num_workers: int):
        self.reader, self.sampler = reader, sampler
        num_slots = PREFETCH * num_workers + 1  # batches that are read ahead, and the one that is copied
        # The last batch of an epoch may have one clip more.
        slots = shared_memory(num_slots, sampler.batch_size + 1, reader.num_steps, *reader.frame_shape)
        self.slots = slots

        def read(request: tuple[int, list[int], int | None]) -> None:
            batch, clips, epoch = request
            reader.read(clips, epoch, slots[batch % num_slots, : len(clips)])

        self.requests: list[tuple[int, list[int], int | None]] = []  # of an epoch
        options = {"prefetch_factor": PREFETCH if num_workers else None, "persistent_workers": num_workers > 0}
        self.answers = WorkerLoader(read, self.requests, num_workers, **options)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        epoch = None if self.sampler.seed is None else self.sampler.epoch
        self.requests[:] = [(batch, clips.tolist(), epoch) for batch, clips in enumerate(self.sampler)]
        for (batch, clips, _), error in zip(self.requests, self.answers, strict=True):
            if error:
                raise error
            yield self.reader.batch(clips, self.slots[batch % len(self.slots), : len(clips)].copy())

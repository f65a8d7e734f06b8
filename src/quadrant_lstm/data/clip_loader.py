"""Reads batches of clips in worker processes. Which frames are read depends only on the seed and the epoch."""

import functools
import logging
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from quadrant_lstm.data import datamodule
from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, Note, read_frames
from quadrant_lstm.data.datamodule import Batch, EpochSampler, WorkerLoader, epoch_seed
from quadrant_lstm.data.feature_cache import FeatureCache, Rows
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.data.sampling import Numbers, Sampling
from quadrant_lstm.data.splits import Sample
from quadrant_lstm.errors import UserError
from quadrant_lstm.text import counted

log = logging.getLogger(__name__)
PREFETCH = 2  # batches for each worker
SHORT = 4  # times as many frames as a network reads: all frames of shorter clips are encoded in the first epoch


def shared_memory(*shape: int) -> UInt8[Tensor, "..."]:
    """Returns zeros, which this process shares with those that it starts later. Memory is used when it is written."""
    if datamodule.START_METHOD == "spawn":
        return torch.zeros(shape, dtype=torch.uint8).share_memory_()
    size = math.prod(shape)  # a container has more of this memory than of /dev/shm, which torch would use
    return torch.frombuffer(mmap.mmap(-1, max(1, size)), dtype=torch.uint8)[:size].view(shape)


class ClipReader:
    """Reads some of the available frames of clips, as `sampling` says: as many as a network reads, or all.

    Frames are uint8 [windows, steps, height, width, channels]. The first clips are kept whole, as many as fit into
    `cache_bytes`, whatever the order in which they are read. Their memory is shared with the workers that read.
    Without an epoch, each clip is read in `num_windows` windows.
    """

    def __init__(
        self,
        clips: Sequence[Sample],
        notes: Mapping[Path, Note],
        available: Mapping[Path, Numbers],
        frame_format: FrameFormat,
        sampling: Sampling,
        spec: SequenceSpec,
        seed: int,
        num_windows: int = 1,
        cache_bytes: int = 0,
    ):
        self.clips, self.frame_format, self.sampling, self.seed = clips, frame_format, sampling, seed
        self.num_steps, self.num_windows = spec.num_steps, num_windows
        self.numbers = [available[clip.path] for clip in clips]  # of the frames
        self.pads = min(map(len, available.values())) < spec.num_steps
        self.key_frames = [notes[clip.path].key_frames for clip in clips]
        first_rows = dict(zip(notes, np.cumsum([0, *(note.num_frames for note in notes.values())]), strict=False))
        self.first_rows = [first_rows[clip.path] for clip in clips]  # of the features that are kept
        self.features: FeatureCache | None = None
        channels, height, width = spec.frame_shape
        self.frame_shape = height, width, channels
        ends = np.cumsum(list(map(len, self.numbers)))
        ends = ends[ends * math.prod(self.frame_shape) <= cache_bytes]
        kept = shared_memory(int(ends.max(initial=0)), *self.frame_shape)
        self.kept = kept.tensor_split(ends.tolist())[:-1]
        self.is_read = shared_memory(len(self.kept))

    def __len__(self) -> int:
        return len(self.clips)

    def length(self, number: int) -> int:
        return min(len(self.numbers[number]), self.num_steps)

    def windows(self, number: int, epoch: int | None, num_windows: int) -> list[Numbers]:
        """Returns which of a clip's frames are read in each window: of the training, by the seed and the epoch."""
        available, length = len(self.numbers[number]), self.length(number)
        if epoch is not None:
            return [self.sampling.drawn_places(available, length, epoch_seed(self.seed, epoch, number))]
        return [self.sampling.places(available, length, window, num_windows) for window in range(num_windows)]

    def read(self, clips: Sequence[int], epoch: int | None, out: np.ndarray, only_missing: bool = False) -> bool:
        """Writes the windows of the clips with these numbers to `out`, which has as many windows for each clip. Returns
        whether any was read: with `only_missing`, those whose features are kept are not.
        """
        num_windows = len(out) // len(clips)
        windows = [(number, places) for number in clips for places in self.windows(number, epoch, num_windows)]
        was_read = False
        for frames, (number, places) in zip(out, windows, strict=True):
            if only_missing and self.features and self.features.read(self.rows(number, places))[1].all():
                continue
            was_read, length = True, len(places)
            if number < len(self.kept) and not only_missing:
                if not self.is_read[number]:  # two workers may both read it
                    self.decode(number, self.numbers[number], self.kept[number].numpy())
                    self.is_read[number] = 1
                frames[:length] = self.kept[number].numpy()[places]
            else:
                self.decode(number, self.numbers[number][places], frames[:length])
            frames[length:] = 0
        return was_read

    def read_whole(self, number: int) -> np.ndarray:
        """Returns all available frames of a clip as one window."""
        frames = np.empty((1, len(self.numbers[number]), *self.frame_shape), np.uint8)
        self.decode(number, self.numbers[number], frames[0])
        return frames

    def rows(self, number: int, places: Numbers | slice) -> Numbers:
        """Returns the rows of FeatureCache for some frames of a clip."""
        return self.first_rows[number] + self.numbers[number][places]

    def rows_of_batch(self, clips: Sequence[int], epoch: int | None, num_windows: int) -> Rows:
        """Returns [windows, steps], with -1 for padding."""
        rows = [self.rows(number, places) for number in clips for places in self.windows(number, epoch, num_windows)]
        return np.stack([np.pad(row, (0, self.num_steps - len(row)), constant_values=-1) for row in rows])

    def decode(self, number: int, frames: Numbers, out: np.ndarray) -> None:
        try:
            path, key_frames = self.clips[number].path, self.key_frames[number]
            read_frames(path, self.frame_format, frames.tolist(), out, key_frames)
        except BrokenClip as error:
            raise UserError(f"{error}, but could when this command started; restore it, and resume the run.") from error

    def batch(self, clips: Sequence[int], frames: UInt8[Tensor, "windows steps height width channels"]) -> Batch:
        """Returns a batch of frames that were read; its channels remain last in memory."""
        num_windows = len(frames) // len(clips)
        labels = torch.tensor([self.clips[number].label for number in clips])
        lengths = torch.tensor([self.length(number) for number in clips]).repeat_interleave(num_windows)
        return Batch(frames.movedim(4, 2), labels, lengths if self.pads else None)


class Request(NamedTuple):
    """What a worker reads: a batch of clips."""

    number: int
    clips: list[int]
    epoch: int | None
    num_windows: int
    only_missing: bool


def read_into(slots: UInt8[Tensor, "..."], reader: ClipReader, request: Request) -> bool:
    slot = slots[request.number % len(slots), : request.num_windows * len(request.clips)]
    return reader.read(request.clips, request.epoch, slot.numpy(), request.only_missing)


class ClipLoader:
    """Yields batches that worker processes, which remain from epoch to epoch, write to slots of memory that they share
    with this process. A batch has features, too, if the reader keeps them.

    A DataLoader would share new memory for each batch, of which most containers have too little in /dev/shm; through a
    pipe, cached frames would take as long as decoding them.
    """

    batch_sampler = None  # Lightning reads it

    def __init__(self, reader: ClipReader, sampler: EpochSampler, num_workers: int):
        self.reader, self.sampler, self.num_workers = reader, sampler, num_workers
        num_slots = PREFETCH * num_workers + 1  # batches that are read ahead, and the one that is copied
        # The last batch of an epoch may have one clip more.
        size = reader.num_windows * (sampler.batch_size + 1), reader.num_steps, *reader.frame_shape
        self.slots = shared_memory(num_slots, *size)
        self.requests: list[Request] = []  # of an epoch
        read = functools.partial(read_into, self.slots, reader)
        options = {"prefetch_factor": PREFETCH if num_workers else None, "persistent_workers": num_workers > 0}
        self.answers = WorkerLoader(read, self.requests, num_workers, **options)

    def __len__(self) -> int:
        return len(self.sampler)

    def encode_short_clips(self, features: FeatureCache) -> None:
        """Encodes all frames of short clips, of which each epoch reads others. Other processes encode other clips."""
        reader, sampler = self.reader, self.sampler
        clips = [
            number
            for number in sampler.indices[sampler.rank :: sampler.num_ranks].tolist()
            if len(reader.numbers[number]) <= SHORT * reader.num_steps
            and not features.read(reader.rows(number, slice(None)))[1].all()
        ]
        if clips:
            log.info(
                f"encoding {counted(len(clips), 'clip')} once; later epochs read the features from {features.file}"
            )
        for number, frames in zip(clips, WorkerLoader(reader.read_whole, clips, self.num_workers), strict=True):
            if isinstance(frames, UserError):
                raise frames
            features.features(torch.from_numpy(frames).movedim(4, 2), reader.rows(number, slice(None))[None])

    def __iter__(self) -> Iterator[Batch]:
        reader, epoch = self.reader, None if self.sampler.seed is None else self.sampler.epoch
        num_windows = reader.num_windows if epoch is None else 1
        features = reader.features if reader.features and reader.features.is_constant else None
        if features:
            features.prepare()
        if features and epoch is not None:
            self.encode_short_clips(features)
        self.requests[:] = [
            Request(number, clips.tolist(), epoch, num_windows, features is not None)
            for number, clips in enumerate(self.sampler)
        ]
        for request, was_read in zip(self.requests, self.answers, strict=True):
            if isinstance(was_read, UserError):
                raise was_read
            frames = self.slots[request.number % len(self.slots), : num_windows * len(request.clips)]
            # what is not read stands for its shape
            batch = reader.batch(
                request.clips, frames.clone() if was_read else frames[:1, :1, :1, :1].expand_as(frames)
            )
            if features:
                rows = reader.rows_of_batch(request.clips, epoch, num_windows)
                batch = batch._replace(features=features.features(batch.frames, rows))
            yield batch

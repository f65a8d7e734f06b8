"""Reads batches of clips in worker processes. Which frames are read depends only on the seed and the epoch."""

import functools
import logging
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from quadrant_lstm.data import datamodule
from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, Note, read_frames
from quadrant_lstm.data.datamodule import Batch, EpochSampler, WorkerLoader
from quadrant_lstm.data.feature_cache import FeatureCache, Rows
from quadrant_lstm.data.file_sequences import Numbers, Window, WindowReader
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


class ClipReader(WindowReader):
    """Reads some of the available frames of clips, or all.

    Frames are uint8 [windows, steps, height, width, channels]. The first clips are kept whole, as many as fit into
    `cache_bytes`, whatever the order in which they are read. Their memory is shared with the workers that read.
    `reading` are the arguments of WindowReader.
    """

    def __init__(self, notes: Mapping[Path, Note], frame_format: FrameFormat, cache_bytes: int, *reading: Any):
        super().__init__(*reading)
        self.frame_format = frame_format
        self.key_frames = [notes[clip.path].key_frames for clip in self.samples]
        first_rows = dict(zip(notes, np.cumsum([0, *(note.num_frames for note in notes.values())]), strict=False))
        self.first_rows = [first_rows[clip.path] for clip in self.samples]  # of the features that are kept
        channels, height, width = self.spec.frame_shape
        self.frame_shape = height, width, channels
        ends = np.cumsum(list(map(len, self.numbers)))
        ends = ends[ends * math.prod(self.frame_shape) <= cache_bytes]
        kept = shared_memory(int(ends.max(initial=0)), *self.frame_shape)
        self.kept = kept.tensor_split(ends.tolist())[:-1]
        self.is_read = shared_memory(len(self.kept))

    def read(self, windows: Sequence[Window | None], out: np.ndarray, uses_cache: bool = True) -> None:
        """Writes the windows to `out`, with padding. What is in the place of None remains."""
        for window, frames in zip(windows, out, strict=True):
            if window is None:
                continue
            (number, places), length = window, len(window[1])
            if uses_cache and number < len(self.kept):
                if not self.is_read[number]:  # two workers may both read it
                    self.decode(number, self.numbers[number], self.kept[number].numpy())
                    self.is_read[number] = 1
                frames[:length] = self.kept[number].numpy()[places]
            else:
                self.decode(number, self.numbers[number][places], frames[:length])
            frames[length:] = 0

    def frames(self, windows: Sequence[Window]) -> UInt8[Tensor, "windows steps channels height width"]:
        frames = torch.empty(len(windows), self.num_steps, *self.frame_shape, dtype=torch.uint8)
        self.read(windows, frames.numpy())
        return frames.movedim(4, 2)

    def read_alone(self, window: Window) -> np.ndarray:
        """Returns one window, which may have more frames than a network reads."""
        frames = np.empty((1, max(self.num_steps, len(window[1])), *self.frame_shape), np.uint8)
        self.read([window], frames, uses_cache=False)
        return frames

    def decode(self, number: int, frames: Numbers, out: np.ndarray) -> None:
        try:
            read_frames(self.samples[number].path, self.frame_format, frames.tolist(), out, self.key_frames[number])
        except BrokenClip as error:
            raise UserError(f"{error}, but could when this command started; restore it, and resume the run.") from error

    def rows(self, windows: Sequence[Window]) -> Rows:
        """Returns the rows of FeatureCache, with -1 for padding."""
        rows = np.full((len(windows), max(self.num_steps, *(len(places) for _, places in windows))), -1)
        for row, (number, places) in zip(rows, windows, strict=True):
            row[: len(places)] = self.first_rows[number] + self.numbers[number][places]
        return rows


Request = tuple[int, list[Window | None], bool]  # the number of a batch, and the arguments of ClipReader.read


def read_into(slots: UInt8[Tensor, "..."], reader: ClipReader, request: Request) -> None:
    number, windows, uses_cache = request
    reader.read(windows, slots[number % len(slots), : len(windows)].numpy(), uses_cache)


class ClipLoader:
    """Yields batches that worker processes, which remain from epoch to epoch, write to slots of memory that they share
    with this process. A batch has features, too, while `features` keeps them.

    A DataLoader would share new memory for each batch, of which most containers have too little in /dev/shm; through a
    pipe, cached frames would take as long as decoding them.
    """

    batch_sampler = None  # Lightning reads it

    def __init__(
        self, reader: ClipReader, sampler: EpochSampler, num_workers: int, features: FeatureCache | None = None
    ):
        self.reader, self.sampler, self.num_workers, self.features = reader, sampler, num_workers, features
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
        numbers = sampler.indices[sampler.rank :: sampler.num_ranks].tolist()
        whole = [(number, np.arange(len(reader.numbers[number]))) for number in numbers]
        short = [window for window in whole if len(window[1]) <= SHORT * reader.num_steps]
        missing = [window for window in short if features.read(reader.rows([window]))[1].any()]
        if missing:
            log.info(f"encoding {counted(len(missing), 'clip')} once; later epochs read {features.file}")
        for window, frames in zip(missing, WorkerLoader(reader.read_alone, missing, self.num_workers), strict=True):
            if isinstance(frames, UserError):
                raise frames
            features.features(torch.from_numpy(frames).movedim(4, 2), reader.rows([window]))

    def __iter__(self) -> Iterator[Batch]:
        reader, epoch = self.reader, self.sampler.drawn_epoch
        features = self.features if self.features and self.features.is_constant else None
        if features:
            features.prepare()
        if features and epoch is not None:
            self.encode_short_clips(features)
        self.requests.clear()
        batches = []
        for number, clips in enumerate(self.sampler):
            windows = reader.windows(clips.tolist(), epoch)
            is_missing: Any = [True] * len(windows)
            if features:
                is_missing = features.read(reader.rows(windows))[1].any(1)
            missing = [window if wanted else None for window, wanted in zip(windows, is_missing, strict=True)]
            batches.append((clips, windows))
            self.requests.append((number, missing, features is None))
        for (number, missing, _), (clips, windows), answer in zip(self.requests, batches, self.answers, strict=True):
            if isinstance(answer, UserError):
                raise answer
            frames = self.slots[number % len(self.slots), : len(windows)]
            if any(missing):  # torch's copy would take the threads of the processes that read
                frames = torch.from_numpy(frames.numpy().copy())
            else:  # what is not read stands for its shape
                frames = frames[:1, :1, :1, :1].expand_as(frames)
            batch = reader.batch_of(clips, windows, frames.movedim(4, 2))  # channels remain last in memory
            if features:
                batch = batch._replace(features=features.features(batch.frames, reader.rows(windows)))
            yield batch

"""Reads batches of clips in worker processes.

The batches of an epoch, and where its long clips are cut, depend only on the seed and the number of the epoch.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from quadrant_lstm.data.clip_files import FrameFormat, read_frames
from quadrant_lstm.data.clip_folder import Clip
from quadrant_lstm.data.clip_index import Note
from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.data.frame_cache import FrameCache
from quadrant_lstm.data.frames import SequenceSpec
from quadrant_lstm.data.sampler import EpochSampler, epoch_seed
from quadrant_lstm.errors import UserError


class Request(NamedTuple):
    numbers: list[int]  # of the clips of a batch
    epoch: int | None  # in which long clips are cut at random; None cuts out their middle


class ClipDataset(Dataset):
    """Maps a Request to a Batch of uint8 frames."""

    cache: FrameCache | None = None

    def __init__(
        self,
        clips: Sequence[Clip],
        notes: Mapping[Path, Note],
        frame_format: FrameFormat,
        frame_step: int,
        spec: SequenceSpec,
        seed: int,
    ):
        self.clips, self.frame_format, self.frame_step = clips, frame_format, frame_step
        self.spec, self.seed = spec, seed
        self.lengths = [-(-notes[clip.path].num_frames // frame_step) for clip in clips]  # after every n-th was taken
        self.pads = any(-(-note.num_frames // frame_step) < spec.num_steps for note in notes.values())

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, request: Request) -> Batch | UserError:
        try:
            return self.read_batch(*request)
        except UserError as error:  # raised in a worker, it would get a traceback
            return error

    def read_batch(self, numbers: Sequence[int], epoch: int | None) -> Batch:
        num_steps, lengths = self.spec.num_steps, [min(self.lengths[number], self.spec.num_steps) for number in numbers]
        frames = np.zeros((len(numbers), num_steps, *self.spec.frame_shape), np.uint8)
        for place, (number, length) in enumerate(zip(numbers, lengths, strict=True)):
            frames[place, :length] = self.read_clip(number, self.start(number, length, epoch), length)
        labels = torch.tensor([self.clips[number].label for number in numbers], dtype=torch.long)
        real = torch.tensor(lengths, dtype=torch.long) if self.pads else None
        return Batch(torch.from_numpy(frames), labels, real)

    def start(self, number: int, length: int, epoch: int | None) -> int:
        spare = self.lengths[number] - length
        if epoch is None:
            return spare // 2
        return epoch_seed(self.seed, epoch, number) % (spare + 1)

    def read_clip(self, number: int, start: int, length: int) -> np.ndarray:
        path = self.clips[number].path
        if self.cache and self.cache.holds(number):
            every = range(0, self.lengths[number] * self.frame_step, self.frame_step)
            frames = self.cache.read(
                number, self.stored_shape(number), lambda: read_frames(path, self.frame_format, every)
            )
            return frames[start : start + length]
        numbers = range(start * self.frame_step, (start + length) * self.frame_step, self.frame_step)
        return read_frames(path, self.frame_format, numbers)

    def stored_shape(self, number: int) -> tuple[int, ...]:
        return self.lengths[number], *self.spec.frame_shape


class Requests(Sampler):
    def __init__(self, sampler: EpochSampler):
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Request]:
        epoch = None if self.sampler.seed is None else self.sampler.epoch
        return (Request(batch.tolist(), epoch) for batch in self.sampler)


class ClipLoader:
    """Reads batches in worker processes, which remain from epoch to epoch."""

    batch_sampler = None  # Lightning reads it

    def __init__(self, data: ClipDataset, sampler: EpochSampler, num_workers: int, pin_memory: bool):
        self.sampler = sampler
        # a DataLoader draws a seed for its workers; from the default generator, this would change the dropout
        workers: dict[str, Any] = {"generator": torch.Generator()}
        if num_workers:
            workers |= {"num_workers": num_workers, "multiprocessing_context": "fork", "persistent_workers": True}
        self.loader = DataLoader(data, batch_size=None, sampler=Requests(sampler), pin_memory=pin_memory, **workers)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch

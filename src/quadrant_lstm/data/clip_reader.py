"""Reads the frames of a batch of clips. Where long clips are cut depends only on the seed and the epoch."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from quadrant_lstm.data.clip_folder import Clip
from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, frame_numbers, read_frames, steps_in
from quadrant_lstm.data.clip_index import Note
from quadrant_lstm.data.frame_cache import FrameCache
from quadrant_lstm.data.frames import SequenceSpec
from quadrant_lstm.data.sampler import epoch_seed
from quadrant_lstm.errors import UserError


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

"""Finds, examines and splits clips in files, and gives Lightning batches of padded clips with their lengths.

files -> uint8 frames, cached in memory -> every n-th frame, cut to `num_frames` or padded -> batch -> device
"""

import hashlib
import os
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.clip_frames import FrameFormat
from quadrant_lstm.data.clip_index import examine_clips, find_clips
from quadrant_lstm.data.clip_loader import ClipLoader, ClipReader
from quadrant_lstm.data.datamodule import Batch, SequenceDataModule
from quadrant_lstm.data.orderings import SequenceSpec, scaled
from quadrant_lstm.errors import UserError, as_text
from quadrant_lstm.kinds import AtLeastTwo, BelowOne, Count, Fit, Layout, Natural, NonNegative, Share, Size


class Clips(SequenceDataModule):
    """conf/data/clips.yaml explains the arguments. Raises UserError for a clip that cannot be read, unless broken clips
    are skipped: `skipped` then lists them.
    """

    validation_key = "validation_share"

    def __init__(
        self,
        root: str | None,
        num_frames: Count | None,
        frame_step: Count,
        size: Size | None,
        fit: Fit,
        channels: Literal[1, 3],
        layout: Layout | None,
        test_share: Share,
        validation_share: BelowOne,
        validation_seed: Natural,
        batch_size: Count,
        num_workers: Natural,
        cache_gb: NonNegative,
        skip_broken: bool,
        seed: Natural,
        augmentation: Augmentation,
        fold: Natural | None = None,
        num_folds: AtLeastTwo = 5,
    ):
        if num_workers and not hasattr(os, "fork"):
            raise UserError(
                f"data.num_workers: {num_workers}, but this system cannot fork the processes that read clips; write "
                "data.num_workers=0."
            )
        self.folder, names, train_clips, test_clips = find_clips(root, test_share, validation_seed)
        frame_format = FrameFormat(channels, None if size is None else (size[0], size[1]), layout, fit)
        paths = [clip.path for clip in (*train_clips, *test_clips)]
        self.notes, self.skipped = examine_clips(self.folder, paths, frame_format, num_workers)
        if self.skipped and not skip_broken:
            number = len(self.skipped) - 1
            others = f" ({number} other{' is' if number == 1 else 's are'} broken, too)" if number else ""
            raise UserError(f"{self.skipped[0]}{others}; replace or remove it, or add data.skip_broken=true.")
        for split, clips in (("training", train_clips), ("test", test_clips)):
            clips[:] = [clip for clip in clips if clip.path in self.notes]
            if missing := set(range(len(names))) - {clip.label for clip in clips}:
                name = names[min(missing)]
                raise UserError(
                    f"data.root: no {split} clip of class {name} can be read; add one, or remove the class."
                )
        sizes = {(note.height, note.width): path for path, note in self.notes.items()}
        if len(sizes) > 1:
            (size, path), (other_size, other) = list(sizes.items())[:2]
            raise UserError(
                f"{other}: its frames are of {other_size[0]} x {other_size[1]}, but those of {path} of {size[0]} x "
                f"{size[1]}; add data.size=[HEIGHT,WIDTH]."
            )
        ((height, width),) = sizes
        longest = max(len(range(0, note.num_frames, frame_step)) for note in self.notes.values())
        spec = SequenceSpec((channels, height, width), num_frames or longest, names)
        reading = (self.notes, frame_format, frame_step, spec, seed)
        train, test = ClipReader(train_clips, *reading, round(1e9 * cache_gb)), ClipReader(test_clips, *reading)
        num_validation = max(1, round(validation_share * len(train))) if validation_share else 0
        super().__init__(spec, train, test, num_validation, validation_seed, fold, num_folds, batch_size, seed)
        self.num_workers, self.augmentation, self.pads = num_workers, augmentation, train.pads

    def loader(self, data: ClipReader, indices: Int64[Tensor, " samples"], seed: int | None = None) -> ClipLoader:
        return ClipLoader(data, self.sampler(indices, seed), self.num_workers)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        frames = batch.frames
        if self.trainer and self.trainer.training:
            frames = self.augmentation(frames.flatten(1, 2)).unflatten(1, frames.shape[1:3])
        return batch._replace(frames=scaled(frames))

    def class_counts(self) -> Int64[Tensor, " classes"]:
        labels = torch.tensor([self.train.clips[number].label for number in self.train_indices.tolist()])
        return labels.bincount(minlength=self.spec.num_classes)

    def test_names(self, indices: Int64[Tensor, " samples"]) -> list[str]:
        return [as_text(self.test.clips[number].path) for number in indices.tolist()]

    def test_samples(self, indices: Int64[Tensor, " samples"]) -> Batch:
        clips = indices.tolist()
        frames = np.empty((len(clips), self.spec.num_steps, *self.test.frame_shape), np.uint8)
        self.test.read(clips, None, frames)
        return self.test.batch(clips, frames)

    def sha256(self) -> str:
        lines = [f"{path.relative_to(self.folder)} {note.sha256}" for path, note in self.notes.items()]
        return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()

"""Cuts series of vectors into steps, and gives Lightning batches of padded series with their lengths.

float32 [time, features] in memory -> steps -> as many as a network reads, or padded -> batch

A step is a vector of the features, or with `window` a window [features, values] of so many times.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from quadrant_lstm import kinds
from quadrant_lstm.data import splits
from quadrant_lstm.data.augmentation import SeriesAugmentation
from quadrant_lstm.data.datamodule import Batch, BatchLoader
from quadrant_lstm.data.file_sequences import FileSequences, Numbers, Window, WindowReader
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.data.series_files import Values, load_series, warnings_of
from quadrant_lstm.data.splits import Sample
from quadrant_lstm.errors import UserError
from quadrant_lstm.text import counted

# Steps of series


def cut_ends(
    samples: Sequence[Sample], series: Mapping[Path, Values], share: float
) -> tuple[list[Sample], dict[Path, Values], dict[Path, Path]]:
    """Cuts each series in two: its end, of this share, is for the test. Returns the parts, their values, and the ends
    by the starts. Raises UserError where splits are given, and for a series that is too short.
    """
    parts: list[Sample] = []
    cut: dict[Path, Values] = {}
    ends: dict[Path, Path] = {}
    for sample in samples:
        if sample.split:
            raise UserError(f"data.test_end: {share}, but {sample.path} is in {sample.split}; leave it out.")
        values = series[sample.path]
        if not 0 < (start := round(len(values) * (1 - share))) < len(values):
            rule = f"{sample.path}, which has {counted(len(values), 'value')}, is nothing or all"
            raise UserError(f"data.test_end: {share} of {rule}; remove it.")
        end = f" from {start + 1} on"
        last = Sample(sample.path.with_name(sample.path.name + end), sample.label, sample.group + end, "test")
        parts += [sample._replace(split="train"), last]
        cut |= {sample.path: values[:start], last.path: values[start:]}
        ends[sample.path] = last.path
    return parts, cut, ends


def steps_available(num_values: int, window: int | None, stride: int | None) -> Numbers:
    """Returns the places of the first value of each step."""
    return np.arange(0, num_values - (window or 1) + 1, stride or window or 1)


def steps_at(values: Values, places: Int[np.ndarray, "..."], window: int | None) -> Float32[np.ndarray, "..."]:
    return values[places] if window is None else values[places[..., None] + np.arange(window)].swapaxes(-1, -2)


class SeriesReader(WindowReader):
    """Reads some of the steps of series, or all, if `shuffled` in a random order. `reading` are the arguments of
    WindowReader.
    """

    def __init__(self, series: Mapping[Path, Values], window: int | None, shuffled: bool, *reading: Any):
        super().__init__(*reading)
        self.series = [series[sample.path] for sample in self.samples]
        self.window, self.shuffled = window, shuffled

    def windows(self, samples: Sequence[int], epoch: int | None, num_windows: int | None = None) -> list[Window]:
        windows = super().windows(samples, epoch, num_windows)
        if not self.shuffled:
            return windows
        stream = 0 if epoch is None else 1 + epoch  # a new order in each epoch of the training, one for all tests
        generators = (np.random.default_rng((self.seed, number, stream)) for number, _ in windows)
        shuffled = zip(windows, generators, strict=True)
        return [(number, generator.permutation(places)) for (number, places), generator in shuffled]

    def frames(self, windows: Sequence[Window]) -> Float32[Tensor, "windows steps ..."]:
        frames = np.zeros((len(windows), self.num_steps, *self.spec.frame_shape), np.float32)
        for (number, places), out in zip(windows, frames, strict=True):
            out[: len(places)] = steps_at(self.series[number], self.numbers[number][places], self.window)
        return torch.from_numpy(frames)


# The data of a run


class Series(FileSequences):
    """conf/data/series.yaml explains the arguments. Raises UserError for a series that cannot be read."""

    kind = "series"
    statistics: tuple[Tensor, Tensor]

    def __init__(
        self,
        dataset: kinds.SeriesSet | None,
        root: str | None,
        labels: str | None,
        group: str | None,
        num_frames: kinds.Count | None,
        sampling: kinds.SamplingKind,
        window: kinds.Count | None,
        stride: kinds.Count | None,
        test_windows: kinds.Count,
        missing: kinds.Missing | None,
        test_share: kinds.Share,
        validation_share: kinds.BelowOne,
        validation_seed: kinds.Natural,
        batch_size: kinds.Count,
        seed: kinds.Natural,
        fold: kinds.Natural | None = None,
        num_folds: kinds.AtLeastTwo = 5,
        test_fold: kinds.Natural | None = None,
        shuffled: bool = False,
        test_end: kinds.Share | None = None,
        augmentation: SeriesAugmentation = SeriesAugmentation(),  # noqa: B008 - it is frozen
    ):
        loaded = load_series(dataset, root, labels, group, missing)
        samples, series, origin = loaded.samples, loaded.values, loaded.origin
        ends: Mapping[Path, Path] = {}
        if test_end:
            samples, series, ends = cut_ends(samples, series, test_end)
            origin += f"; the last {100 * test_end:g} % of each series for the test, but of those for validation"
        drawing = test_share, validation_share, validation_seed, fold, num_folds, test_fold
        division = splits.divide(samples, loaded.class_names, *drawing)
        # the test is at other times than training
        unseen = {ends.get(division.train[place].path) for place in division.held_out}
        test_samples = [sample for sample in division.test if sample.path not in unseen]
        num_features = loaded.num_features
        augmentation.check(num_features)
        available = {path: steps_available(len(values), window, stride) for path, values in series.items()}
        if short := [path for path, steps in available.items() if not len(steps)]:
            rule = f"is longer than {short[0]}, which has {counted(len(series[short[0]]), 'value')}"
            raise UserError(f"data.window: {window} {rule}; write a smaller one, or remove the file.")
        frame_shape = (num_features,) if window is None else (num_features, window)
        num_steps = num_frames or max(map(len, available.values()))
        spec = SequenceSpec(frame_shape, num_steps, loaded.class_names, loaded.feature_names)
        how_read = available, sampling, spec, seed
        train = SeriesReader(series, window, shuffled, division.train, *how_read, 1)
        test = SeriesReader(series, window, shuffled, test_samples, *how_read, test_windows)
        checksums = {path: hashlib.sha256(values.tobytes()).hexdigest() for path, values in series.items()}
        amount = f"{sum(map(len, series.values())):,} values of {counted(num_features, 'feature')}"
        super().__init__(spec, train, test, division, batch_size, seed, loaded.root, origin, checksums, amount)
        self.warnings += warnings_of(loaded)
        self.is_cut, self.augmentation = bool(test_end), augmentation
        self.statistics = statistics_of([train.series[number] for number in self.train_indices.tolist()])
        self.blank = self.statistics[0].view(-1, *[1] * (len(frame_shape) - 1))
        self.values_per_step = 1 if window is None else min(window, stride or window)

    def loader(self, data: SeriesReader, indices: Int64[Tensor, " samples"], seed: int | None = None) -> BatchLoader:
        return BatchLoader(data.batch, self.sampler(indices, seed))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if not self.is_training:
            return batch
        frames, deviation = batch.frames.float(), self.statistics[1].to(batch.frames.device)
        frames = self.augmentation(frames, deviation).type_as(batch.frames)
        if batch.lengths is not None:  # padding has no noise
            is_padding = torch.arange(frames.shape[1], device=frames.device) >= batch.lengths[:, None]
            frames[is_padding] = 0
        return batch._replace(frames=frames)

    def test_pictures(self, indices: Int64[Tensor, " samples"]) -> UInt8[Tensor, "samples channels height width"]:
        return torch.stack([self.picture(steps) for steps in self.test_samples(indices).unpadded()])

    def picture(
        self, steps: Float[Tensor, "steps ..."], height: int = 40, width: int = 120
    ) -> UInt8[Tensor, "3 height width"]:
        """Draws a curve for each feature of a series, from three deviations below its mean to three above it."""
        from quadrant_lstm.plotting import GROUP_COLOURS  # here, because it imports matplotlib

        if steps.ndim == 3:  # windows, of which each value is drawn once
            steps = steps[:, :, : self.values_per_step].movedim(1, 2).flatten(0, 1)
        mean, deviation = self.statistics
        heights = height - height / 3 * ((steps - mean) / deviation).clamp(-3, 3)
        places = (np.arange(len(steps)) + 0.5) * 2 * width / len(steps)
        image = Image.new("RGB", (2 * width, 2 * height), "white")  # reduced later, for smooth lines
        for curve, colour in zip(heights.T.tolist(), itertools.cycle(GROUP_COLOURS), strict=False):
            ImageDraw.Draw(image).line(list(zip(places, curve, strict=True)), fill=colour, width=2)
        return torch.from_numpy(np.array(image.reduce(2))).movedim(2, 0)


def statistics_of(series: Sequence[Values]) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """Returns the mean and the deviation of each feature; 1 for one that is constant, but for rounding in float32."""
    number = sum(map(len, series))
    mean = sum(values.sum(0, dtype=np.float64) for values in series) / number
    deviation = np.sqrt(sum(((values - mean) ** 2).sum(0) for values in series) / number)
    deviation[deviation <= 1e-6 * abs(mean)] = 1
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(deviation, dtype=torch.float32)

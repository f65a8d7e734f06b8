"""Reads series of vectors, and gives Lightning batches of padded series with their lengths.

files -> float32 [time, features] in memory -> steps -> as many as a network reads, or padded -> batch

.npy, or .npz with one array     numbers [time, features], or [time] of one feature
.csv                             a row for each time and a column for each feature, perhaps below their names

A step is a vector of the features, or with `window` a window [features, values] of so many times.
"""

import codecs
import csv
import hashlib
import itertools
import math
import pickle
import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from quadrant_lstm import kinds
from quadrant_lstm.data import image_files, splits
from quadrant_lstm.data.augmentation import SeriesAugmentation
from quadrant_lstm.data.clip_frames import load_array
from quadrant_lstm.data.datamodule import Batch, BatchLoader
from quadrant_lstm.data.file_sequences import FileSequences, Numbers, Window, WindowReader
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.data.splits import Sample
from quadrant_lstm.errors import UserError, needs_extra, reason_of, with_type
from quadrant_lstm.text import counted, with_progress

SUFFIXES = {".npy", ".npz", ".csv"}
MISSING = {"", "nan", "na", "n/a", "#n/a", "null", "none", "?", "-"}  # cells of a table, in lower case
PART_OF_A_NUMBER = re.compile(r"\s*[+-]?0\d+\s*")  # behind a decimal comma
Values = Float32[np.ndarray, "_ features"]  # by time
Names = tuple[str, ...]


def is_series(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


find_series_files = partial(image_files.find_files, kind="series", is_wanted=is_series)


def read_series(file: Path, missing: kinds.Missing | None, feature_names: Sequence[str] = ()) -> tuple[Values, Names]:
    """Returns the values, and the names of the features if the file has any. Raises UserError for a file that cannot be
    read as a series, and for other names than `feature_names`, if there are any.
    """
    try:
        image_files.check_regular(file)
        array, names = read_table(file) if file.suffix.lower() == ".csv" else (load_array(file), ())
        if names and feature_names and names != tuple(feature_names):
            raise ValueError(f"its columns are {', '.join(names)}, not {', '.join(feature_names)}")
        return as_series(array, missing), names
    except Exception as error:  # np.load raises errors of many types
        remedy = "correct its name" if isinstance(error, FileNotFoundError) else "correct or replace it"
        raise UserError(f"{file}: cannot be read as a series ({reason_of(error)}); {remedy}.") from error


def read_table(file: Path) -> tuple[Float[np.ndarray, "..."], Names]:
    with file.open(newline="", encoding="utf-8-sig") as opened:
        names, *_ = lines = [*csv.reader(opened, strict=True)] or [[]]
    rows = [list(map(number_in, line)) for line in lines]
    while rows and not rows[-1]:  # blank lines at the end
        rows.pop()
    first = rows[0] if rows else []
    has_names, known = any(isinstance(cell, str) for cell in first), [cell for cell in first if cell == cell]
    if has_names and any(isinstance(cell, float) for cell in known):  # a damaged row
        raise ValueError("its first row has numbers and texts; write names or numbers only")
    if has_names and not all(map(str.strip, names)):
        raise ValueError("a column has no name; name it, or leave it out if it counts the rows")
    has_index = first[1:] == known != [] and [row[0] for row in rows[1:] if row] == list(range(len(rows) - 1))
    if (len(known) > 2 or has_index) and known == list(range(len(known))):  # as pandas writes unless told not to
        raise ValueError("its first row counts the columns; remove it, or write names")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(first):
            raise ValueError(f"row {number} has {counted(len(row), 'cell')}, but the first has {len(first)}")
        if number > 1 and (wrong := [cell for cell in row if isinstance(cell, str)]):
            rule = "columns are separated by commas, decimals by points"
            raise ValueError(f"row {number}: {wrong[0]!r} is not a number; {rule}")
    return np.array(rows[has_names:], np.float64), tuple(names) if has_names else ()


def number_in(cell: str) -> float | str:
    if "_" in cell or PART_OF_A_NUMBER.fullmatch(cell):  # which Python reads as a number
        return cell
    try:
        return math.nan if cell.strip().lower() in MISSING else float(cell)
    except ValueError:
        return cell


def as_series(array: np.ndarray, missing: kinds.Missing | None) -> Values:
    """Raises ValueError for an array that is no series of finite numbers, or lacks values that are not to be filled."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"its type is {array.dtype}, not a real number")
    if not array.size or array.ndim not in (1, 2):
        raise ValueError(f"its shape is {list(array.shape)}, not [time, features]")
    with np.errstate(over="ignore"):
        values = np.array(array.reshape(len(array), -1), np.float32)
    lacking = "missing; fill it, or train with data.missing=last or interpolate"
    for problem, places in (("not finite in float32", np.isinf(values)), (lacking, np.isnan(values))):
        if places.any() and not (missing and problem == lacking):
            time, feature = np.argwhere(places)[0] + 1
            raise ValueError(f"value {time} of feature {feature} is {problem}")
    times = np.arange(len(values))
    for feature, column in enumerate(values.T):
        known = times[~np.isnan(column)]
        if not len(known):
            raise ValueError(f"feature {feature + 1} has no values")
        if len(known) < len(times):  # before the first known value, that one is taken
            last = known[(np.searchsorted(known, times, side="right") - 1).clip(0)]
            column[:] = column[last] if missing == "last" else np.interp(times, known, column[known])
    return values


# Real series, from the data files of installed packages, which are not imported
#
#     watch       of seglearn                     exercises of the shoulder (Burns et al. 2018, arXiv 1802.01489), in
#                                                 groups by subject
#     vowels      JapaneseVowels of aeon          speakers of two vowels (Kudo et al. 1999), in the set's own split
#     gestures    PickupGestureWiimoteZ of aeon   people who pick something up (Guna et al. 2012), in its own split


Arrays = dict[Path, np.ndarray]  # [time, features], by names that stand for paths
IN_AEON = {"vowels": "JapaneseVowels", "gestures": "PickupGestureWiimoteZ"}


def read_set(name: kinds.SeriesSet) -> tuple[list[Sample], Arrays, str]:
    """Returns the samples, their series, and in words where they come from. Raises UserError if the package is not
    installed, or has no such file.
    """
    package, read = ("aeon", read_aeon) if name in IN_AEON else ("seglearn", read_watch)
    with needs_extra(f"data.dataset={name}", "series"):
        if not (spec := find_spec(package)) or not spec.submodule_search_locations:
            raise ModuleNotFoundError(name=package)
    try:
        samples, arrays = read(Path(spec.submodule_search_locations[0]), name)
    except (OSError, KeyError, ValueError) as error:
        reason = f"cannot be read from this version of {package} ({with_type(error)})"
        raise UserError(f"data.dataset: {name} {reason}; install another version.") from error
    return samples, arrays, f"the package {package} {version(package)}"


ADMITTED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("_codecs", "encode"): codecs.encode,  # of the bytes of an array
}


class NumpyUnpickler(pickle.Unpickler):
    """Admits arrays, and nothing that executes code."""

    def find_class(self, module: str, name: str) -> Any:
        return ADMITTED[module, name]


def read_watch(folder: Path, name: kinds.SeriesSet) -> tuple[list[Sample], Arrays]:
    with (folder / "data" / "watch_dataset.npy").open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        content = NumpyUnpickler(file).load().item()
    arrays = {Path(name, str(number)): array for number, array in enumerate(content["X"], start=1)}
    labels = [content["y_labels"][label] for label in content["y"]]
    described = zip(arrays, labels, content["subject"], strict=True)
    return [Sample(path, label, f"subject {subject}", None) for path, label, subject in described], arrays


def read_aeon(folder: Path, name: kinds.SeriesSet) -> tuple[list[Sample], Arrays]:
    """Reads .ts files: below `@data`, a line for each series, with its features and its class between colons."""
    samples, arrays = [], {}
    for split in ("train", "test"):
        file = folder / "datasets" / "data" / IN_AEON[name] / f"{IN_AEON[name]}_{split.upper()}.ts"
        _, _, data = file.read_text(encoding="utf-8").partition("@data\n")
        for number, line in enumerate(data.splitlines(), start=1):
            *features, label = line.split(":")
            path = Path(name, split, str(number))
            samples.append(Sample(path, label.strip(), str(path), split))
            arrays[path] = np.array([feature.replace("?", "nan").split(",") for feature in features], np.float64).T
    return samples, arrays


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
        feature_names: Names = ()
        if dataset:
            if root or labels or group:
                key = "root" if root else "labels" if labels else "group"
                raise UserError(f"data.{key}: is for files, but data.dataset={dataset} is in a package; leave one out.")
            samples, arrays, origin = read_set(dataset)
            folder, names = Path(), splits.class_names(samples)
            series = {path: as_series(array, missing) for path, array in arrays.items()}
        else:
            folder, names, samples, origin = splits.find_samples(root, labels, group, is_series, self.kind)
            reading = with_progress([sample.path for sample in samples], "reading series", len(samples))
            series = {}
            for path in reading:
                series[path], names_in_file = read_series(path, missing, feature_names)
                feature_names = feature_names or names_in_file
        ends: Mapping[Path, Path] = {}
        if test_end:
            samples, series, ends = cut_ends(samples, series, test_end)
            origin += f"; the last {100 * test_end:g} % of each series for the test, but of those for validation"
        drawing = test_share, validation_share, validation_seed, fold, num_folds, test_fold
        train_samples, held_out, test_samples, how = splits.divide(samples, names, *drawing)
        unseen = {ends.get(train_samples[place].path) for place in held_out}  # the test is at other times than training
        test_samples = [sample for sample in test_samples if sample.path not in unseen]
        (first, num_features), *others = ((path, values.shape[1]) for path, values in series.items())
        if wrong := [f"{path}: has {number}" for path, number in others if number != num_features]:
            rule = f"features, but {first} has {num_features}"
            raise UserError(f"{wrong[0]} {rule}; give [time, features], the same features in all files.")
        augmentation.check(num_features)
        available = {path: steps_available(len(values), window, stride) for path, values in series.items()}
        if short := [path for path, steps in available.items() if not len(steps)]:
            rule = f"is longer than {short[0]}, which has {counted(len(series[short[0]]), 'value')}"
            raise UserError(f"data.window: {window} {rule}; write a smaller one, or remove the file.")
        frame_shape = (num_features,) if window is None else (num_features, window)
        spec = SequenceSpec(frame_shape, num_frames or max(map(len, available.values())), names, feature_names)
        how_read = available, sampling, spec, seed
        train = SeriesReader(series, window, shuffled, train_samples, *how_read, 1)
        test = SeriesReader(series, window, shuffled, test_samples, *how_read, test_windows)
        checksums = {path: hashlib.sha256(values.tobytes()).hexdigest() for path, values in series.items()}
        amount = f"{sum(map(len, series.values())):,} values of {counted(num_features, 'feature')}"
        super().__init__(spec, train, test, held_out, batch_size, seed, folder, (origin, how), checksums, amount)
        if not feature_names:
            self.warnings += warnings_of_first_rows(series)
        self.warnings += warnings_of_offsets(series)
        if len(lengths := {*map(len, series.values())}) == 1 and (length := min(lengths)) < num_features:
            shape = f"{counted(length, 'value')} of {num_features} features"
            self.warnings.append(
                f"data: every series has {shape}; if these arrays are [features, time], transpose them"
            )
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


def warnings_of_first_rows(series: Mapping[Path, Values]) -> list[str]:
    """Warns if all tables begin with the same different numbers, or with 0, which may be the names of the columns."""
    rows = {tuple(values[0].tolist()) for path, values in series.items() if path.suffix.lower() == ".csv"}
    if len(rows) != 1 or len(series) == 1 or len(row := min(rows)) != len({*row}) or (len(row) == 1 and row != (0,)):
        return []
    listed = ", ".join(f"{value:g}" for value in row)
    return [f"data: every series begins with {listed}; if these are names, put a letter before each"]


def warnings_of_offsets(series: Mapping[Path, Values]) -> list[str]:
    """Warns of the first feature whose range is less than a hundred thousandth of its size. A constant counts from
    2**24 on, where float32 rounds whole numbers and may have made it constant.
    """
    low = np.min([values.min(0) for values in series.values()], 0)
    high = np.max([values.max(0) for values in series.values()], 0)
    is_lost = (high - low < 1e-5 * np.abs(high)) & ((low < high) | (np.abs(high) > 2**24))
    if not is_lost.any():
        return []
    feature = int(np.argmax(is_lost))
    where = f"is about {low[feature]:.3g}, where float32 has steps of {np.spacing(high[feature]):.2g}"
    return [f"data: feature {feature + 1} {where}; subtract a constant from its values in the files"]


def statistics_of(series: Sequence[Values]) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """Returns the mean and the deviation of each feature; 1 for one that is constant, but for rounding in float32."""
    number = sum(map(len, series))
    mean = sum(values.sum(0, dtype=np.float64) for values in series) / number
    deviation = np.sqrt(sum(((values - mean) ** 2).sum(0) for values in series) / number)
    deviation[deviation <= 1e-6 * abs(mean)] = 1
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(deviation, dtype=torch.float32)

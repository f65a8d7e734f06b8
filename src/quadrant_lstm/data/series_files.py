"""Reads series of vectors, from files or from installed packages, and checks their values.

.npy, or .npz with one array     numbers [time, features], or [time] of one feature
.csv                             a row for each time and a column for each feature, perhaps below their names
"""

import codecs
import csv
import math
import pickle
import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from quadrant_lstm import kinds
from quadrant_lstm.data import image_files, splits
from quadrant_lstm.data.clip_frames import load_array
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


# All series of a run


class LoadedSeries(NamedTuple):
    root: Path  # of the paths
    class_names: Names
    samples: list[Sample]
    origin: str  # of the classes and splits, in words
    values: dict[Path, Values]
    num_features: int
    feature_names: Names  # if the files have any


def load_series(
    dataset: kinds.SeriesSet | None,
    root: str | None,
    labels: str | None,
    group: str | None,
    missing: kinds.Missing | None,
) -> LoadedSeries:
    """conf/data/series.yaml explains the arguments. Raises UserError for files that cannot be read or have other
    features.
    """
    feature_names: Names = ()
    if dataset:
        if root or labels or group:
            key = "root" if root else "labels" if labels else "group"
            raise UserError(f"data.{key}: is for files, but data.dataset={dataset} is in a package; leave one out.")
        samples, arrays, origin = read_set(dataset)
        folder, names = Path(), splits.class_names(samples)
        series = {path: as_series(array, missing) for path, array in arrays.items()}
    else:
        folder, names, samples, origin = splits.find_samples(root, labels, group, is_series, "series")
        series = {}
        for path in with_progress([sample.path for sample in samples], "reading series", len(samples)):
            series[path], names_in_file = read_series(path, missing, feature_names)
            feature_names = feature_names or names_in_file
    (first, num_features), *others = ((path, values.shape[1]) for path, values in series.items())
    if wrong := [f"{path}: has {number}" for path, number in others if number != num_features]:
        rule = f"features, but {first} has {num_features}"
        raise UserError(f"{wrong[0]} {rule}; give [time, features], the same features in all files.")
    return LoadedSeries(folder, names, samples, origin, series, num_features, feature_names)


def warnings_of(loaded: LoadedSeries) -> list[str]:
    warnings = [] if loaded.feature_names else warnings_of_first_rows(loaded.values)
    warnings += warnings_of_offsets(loaded.values)
    lengths = {*map(len, loaded.values.values())}
    if len(lengths) == 1 and (length := min(lengths)) < loaded.num_features:
        shape = f"{counted(length, 'value')} of {loaded.num_features} features"
        warnings.append(f"data: every series has {shape}; if these arrays are [features, time], transpose them")
    return warnings


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

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from quadrant_lstm.data.augmentation import SeriesAugmentation
from quadrant_lstm.data.series_files import NumpyUnpickler, as_series, find_series_files, read_series
from quadrant_lstm.errors import UserError
from tests.series import noise_series, series_in, write_series_folder, write_table


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes, each with series of 2, 3, 4 and 5 values for the training and for the test."""
    return write_series_folder(tmp_path / "data")


# Files


def test_all_formats_hold_the_same_series(tmp_path):
    values = noise_series(5)
    np.save(tmp_path / "a.npy", values.astype(np.float64))
    np.savez_compressed(tmp_path / "b.npz", values)
    write_table(tmp_path / "c.csv", values)
    write_table(tmp_path / "d.csv", values, ["x", "y", "z"])
    (tmp_path / "e.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "d.csv").read_bytes().replace(b"\n", b"\r\n"))
    files = list(find_series_files(str(tmp_path)))
    assert [file.name for file in files] == ["a.npy", "b.npz", "c.csv", "d.csv", "e.csv"]
    for file in files:
        assert np.array_equal(read_series(file, None)[0], values)
    np.save(tmp_path / "a.npy", np.array([1, 2, 3]))
    assert read_series(tmp_path / "a.npy", None)[0].tolist() == [[1], [2], [3]]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("x.csv", "", r"its shape is \[0\], not \[time, features\]\); correct or replace it"),
        ("x.csv", "a,b\n1,2\n3,x\n", "row 3: 'x' is not a number; columns are separated by commas"),
        ("x.csv", "1,2\n3\n", "row 2 has 1 cell, but the first has 2"),
        ("x.csv", "1,2\n\n3,4\n", "row 2 has 0 cells"),
        ("x.csv", "1,2\n,4\n", "value 2 of feature 1 is missing; fill it, or train with data.missing=last"),
        ("x.csv", "1,2\n3,inf\n", "value 2 of feature 2 is not finite"),
        ("x.csv", "1,2\n3,1e39\n", "value 2 of feature 2 is not finite in float32"),
        ("x.csv", ",0,1,2\n0,5,6,7\n", "its first row counts the columns"),
        ("x.csv", ",0,1\n0,5,6\n1,7,8\n", "its first row counts the columns"),
        ("x.csv", "day,x\n2024_01_05,1\n", "row 2: '2024_01_05' is not a number"),
        ("x.csv", "1,5\n2,05\n", "row 2: '05' is not a number; columns are separated by commas, decimals by points"),
        ("x.csv", "1,err\n1,2\n", "its first row has numbers and texts; write names or numbers only"),
        ("x.csv", ",a\n0,5\n", "a column has no name; name it, or leave it out if it counts the rows"),
        ("x.csv", b"\xff\xfe1", "utf-8"),
        ("x.npy", b"nothing", r"x.npy: cannot be read as a series \("),
        ("x.npy", np.array([None, 1]), r"cannot be read as a series \(.*Python objects in dtype"),
        ("x.npy", np.array(["1"]), "its type is <U1, not a real number"),
        ("x.npy", np.zeros((2, 3, 4)), r"its shape is \[2, 3, 4\], not \[time, features\]"),
        ("x.npz", {"a": np.zeros(2), "b": np.zeros(2)}, "it holds 2 arrays, not one"),
        ("no.csv", None, r"no.csv: cannot be read as a series \(No such file or directory\); correct its name"),
    ],
)
def test_a_file_that_is_no_series_of_numbers_costs_one_line(name, content, line, tmp_path):
    if isinstance(content, dict):
        np.savez(tmp_path / name, **content)
    elif isinstance(content, np.ndarray):
        np.save(tmp_path / name, content)
    elif content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=line):
        read_series(tmp_path / name, None)


def test_a_column_may_be_named_like_a_missing_value(tmp_path):
    (tmp_path / "x.csv").write_text("K,Na\n1,2\n")
    assert read_series(tmp_path / "x.csv", None)[1] == ("K", "Na")


def test_missing_values_are_filled_if_asked_for(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n,1\n1,nan\nNA,#N/A\n4,3\n-,None\n")
    assert read_series(tmp_path / "x.csv", "last")[0].tolist() == [[1, 1], [1, 1], [1, 1], [4, 3], [4, 3]]
    rows = [[1, 1], [1, 5 / 3], [2.5, 7 / 3], [4, 3], [4, 3]]
    assert np.allclose(read_series(tmp_path / "x.csv", "interpolate")[0], rows)
    (tmp_path / "whole.csv").write_text("4,N/A,6\n1,2,3\n")
    assert read_series(tmp_path / "whole.csv", "last")[0].tolist() == [[4, 2, 6], [1, 2, 3]]  # the first row has values
    for missing in ("last", "interpolate"):
        with pytest.raises(ValueError, match="feature 2 has no values"):
            as_series(np.array([[1, np.nan]]), missing)
        with pytest.raises(ValueError, match="value 1 of feature 2 is not finite"):
            as_series(np.array([[1, np.inf]]), missing)


# Windows


def windows_by_a_loop(values: np.ndarray, window: int, stride: int) -> list[np.ndarray]:
    steps, start = [], 0
    while start + window <= len(values):
        steps.append(np.stack([values[start + number] for number in range(window)], axis=1))
        start += stride
    return steps


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (3, 1), (3, 2), (2, 4), (9, None), (4, None)])
def test_the_windows_of_a_series_are_those_of_a_slow_loop(window, stride, tmp_path):
    root = write_series_folder(tmp_path / "data", num_values=[9, 12, 21])
    data = series_in(root, window=window, stride=stride, num_frames=None)
    assert data.spec.frame_shape == (3, window)
    batch = data.test_samples(torch.arange(8))
    for path, steps in zip(data.test_names(torch.arange(8)), batch.unpadded(), strict=True):
        assert np.array_equal(steps, np.stack(windows_by_a_loop(np.load(path), window, stride or window)))
    assert data.test_pictures(torch.arange(2)).shape == (2, 3, 40, 120)


def test_shuffled_steps_are_those_of_the_series_in_an_order_of_the_epoch_and_the_series(tmp_path):
    root = write_series_folder(tmp_path / "data", num_values=[12])
    ordered, shuffled = (series_in(root, num_frames=6, shuffled=value) for value in (False, True))
    samples = list(range(8))
    for data in (ordered, shuffled):
        assert all(np.ptp(places) == 5 and len(set(places)) == 6 for _, places in data.train.windows(samples, 3))
    orders = {
        (epoch, number): tuple(np.argsort(places))
        for epoch in (None, 0, 1)
        for number, places in shuffled.train.windows(samples, epoch)
    }
    assert len(set(orders.values())) > 20  # of 24; two may be equal by chance
    again = series_in(root, num_frames=6, shuffled=True)
    for epoch in (None, 1):
        windows = zip(again.train.windows(samples, epoch), shuffled.train.windows(samples, epoch), strict=True)
        assert all(np.array_equal(one, other) for (_, one), (_, other) in windows)


def test_the_ends_of_series_are_for_the_test(tmp_path):
    root = write_series_folder(tmp_path / "data", halves=["."], num_values=[8, 12])
    data = series_in(root, num_frames=None, test_end=0.25, validation_share=0.0)
    for number, (kept, end) in enumerate(zip(data.train.samples, data.test.samples, strict=True)):
        values = np.load(kept.path)
        cut = len(values) * 3 // 4
        assert (end.label, end.path.name) == (kept.label, f"{kept.path.name} from {cut + 1} on")
        assert np.array_equal(data.train.series[number], values[:cut])
        assert np.array_equal(data.test.series[number], values[cut:])
    assert torch.allclose(data.statistics[0], torch.from_numpy(np.concatenate(data.train.series).mean(0)))
    data = series_in(root, num_frames=None, test_end=0.25, validation_share=0.3)
    held_out = {data.train.samples[place].path.name for place in data.validation_indices.tolist()}
    tested = {path.name.partition(" ")[0] for path in (sample.path for sample in data.test.samples)}
    kept = {data.train.samples[place].path for place in data.train_indices.tolist()}
    assert held_out and len(data.test.samples) == len(kept)
    assert "the last 25 % of each series for the test" in data.origin
    assert tested == {path.name for path in kept}
    with pytest.raises(UserError, match="data.test_end: 0.1 of .*, which has 2 values, is nothing or all; remove it."):
        series_in(write_series_folder(tmp_path / "short", halves=["."], num_values=[2]), test_end=0.1)
    with pytest.raises(UserError, match="data.test_end: 0.5, but .* is in train; leave it out."):
        series_in(write_series_folder(tmp_path / "divided"), test_end=0.5)


# Standardization


def test_statistics_are_those_of_the_training_series_and_a_constant_feature_has_deviation_1(root):
    for file in root.glob("*/*/*.npy"):
        np.save(file, np.load(file) * [1, 0, 1] + [0, 0.1, 0])
    data = series_in(root)
    assert re.match("16 series of 2 classes: .*; 56 values of 3 features$", data.summary)
    names = [row["path"] for row in data.table if row["split"] == "training"]
    values = np.concatenate([np.load(root / name) for name in names])
    mean, deviation = data.statistics
    assert np.allclose(mean, values.mean(0), atol=1e-6)
    assert np.allclose(deviation, values.std(0) * [1, 0, 1] + [0, 1, 0], atol=1e-6)


@pytest.mark.parametrize("half", ["train", "val", "test"])
def test_a_part_of_the_batches_is_always_the_same_and_of_all_classes(half, root):
    data = series_in(root, batch_size=3, validation_share=0.4, test_share=0.4)
    limits = {"overfit_batches": 1, "limit_val_batches": 1, "limit_test_batches": 1}
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, training=True, **limits)
    first, again = (next(iter(getattr(data, f"{half}_dataloader")())).labels.tolist() for _ in range(2))
    assert first == again
    assert len({*first}) == 2
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, training=False, limit_test_batches=1.0)
    assert next(iter(data.test_dataloader())).labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize("names", [["400", "410", "420"], ["0"]])
def test_what_the_data_let_doubt_is_warned_of(names, root):
    """The same first row in all tables, and windows that cannot differ."""
    assert series_in(root, test_windows=2).warnings == series_in(root).warnings
    for file in root.glob("*/*/*.npy"):
        write_table(file.with_suffix(".csv"), np.load(file)[:, : len(names)], names)
        file.unlink()
    assert series_in(root, test_windows=2, num_frames=None).warnings[-2:] == [
        "data.test_windows: no test series has more steps than data.num_frames=6, so that all 2 windows are the same",
        f"data: every series begins with {', '.join(names)}; if these are names, put a letter before each",
    ]


def test_axes_that_may_be_mistaken_are_warned_of(root):
    for file in root.glob("*/*/*.npy"):
        np.save(file, np.load(file)[:2])
    doubt = "every series has 2 values of 3 features; if these arrays are [features, time], transpose them"
    assert series_in(root, num_frames=None).warnings[-1] == f"data: {doubt}"


def test_a_feature_that_float32_keeps_little_of_is_warned_of(root):
    for number, file in enumerate(root.glob("*/*/*.npy")):
        seconds = 1_700_000_000 + np.arange(6.0) + number
        np.save(file, np.column_stack([seconds, np.full(6, 1e9)]))
    rule = "feature 1 is about 1.7e+09, where float32 has steps of 1.3e+02"
    (*_, warning) = series_in(root, num_frames=None).warnings
    assert warning == f"data: {rule}; subtract a constant from its values in the files"


# What does not fit


def test_series_that_do_not_fit_are_refused(root):
    with pytest.raises(UserError, match="data.window: 3 is longer than .*0.npy, which has 2 values; write a smaller"):
        series_in(root, window=3)
    with pytest.raises(UserError, match="data.root: is for files, but data.dataset=watch is in a package; leave one"):
        series_in(root, dataset="watch")
    with pytest.raises(
        UserError, match="data.augmentation.mirror: 4, but the series have 3 features; write numbers from"
    ):
        series_in(root, augmentation=SeriesAugmentation(mirror=[1, 4]))
    with pytest.raises(UserError, match="data.augmentation.rotation: 5 turns three features together, but .* have 4"):
        SeriesAugmentation(rotation=5.0).check(4)
    np.save(root / "train/up/0.npy", np.zeros((4, 2)))
    with pytest.raises(UserError, match=r"0.npy: has 2 features, but .*0.npy has 3; give \[time, features\], the same"):
        series_in(root)
    for name in ("xyz", "yxz"):
        write_table(root / f"train/up/{name}.csv", noise_series(3), name)
    with pytest.raises(UserError, match=r"cannot be read as a series \(its columns are y, x, z, not x, y, z\)"):
        series_in(root)


def test_copies_of_training_series_are_named(root):
    shutil.copy(root / "train/up/3.npy", root / "test/up/0.npy")
    (warning,) = [text for text in series_in(root, validation_share=0.0).warnings if "repeat" in text]
    rule = "data: training series are repeated by 1 series for validation or test, such as .*/0.npy, a copy of .*3.npy;"
    assert re.match(rule, warning)


# Real sets


@pytest.mark.parametrize(
    ("dataset", "package", "shape", "counts"),
    [
        ("watch", "seglearn", (6,), (112, 28)),
        ("vowels", "aeon", (12,), (270, 370)),
        ("gestures", "aeon", (1,), (50, 50)),
    ],
)
def test_a_real_set_is_read_from_its_package(dataset, package, shape, counts):
    if not find_spec(package):  # importing it would import what it needs
        pytest.skip(f"needs {package}, of the extra series")
    data = series_in(None, dataset=dataset, num_frames=None, test_share=0.2, validation_share=0.1)
    assert data.spec.frame_shape == shape
    assert (len(data.train), len(data.test)) == counts
    assert data.origin.startswith(f"the package {package} ")
    if dataset == "watch":  # no subject is in two halves
        halves = [{row["group"] for row in data.table if row["split"] == half} for half in ("training", "test")]
        assert not halves[0] & halves[1]


def test_a_set_whose_package_is_missing_costs_one_line(monkeypatch):
    monkeypatch.setattr("quadrant_lstm.data.series_files.find_spec", lambda name: None)
    line = r'data.dataset=vowels: needs aeon, which is not installed; install it with python -m pip .* ".\[series\]"'
    with pytest.raises(UserError, match=line):
        series_in(None, dataset="vowels")


def test_a_package_without_the_set_costs_one_line(tmp_path, monkeypatch):
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("quadrant_lstm.data.series_files.find_spec", lambda name: spec)
    with pytest.raises(UserError, match="data.dataset: watch cannot be read from this version of seglearn .*; install"):
        series_in(None, dataset="watch")


def test_a_pickle_that_names_other_functions_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(KeyError), (tmp_path / "x").open("rb") as file:
        NumpyUnpickler(file).load()

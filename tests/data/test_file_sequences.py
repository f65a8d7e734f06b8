"""What clips and series have in common: which steps of a file are read, and in which batches."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from quadrant_lstm.data.file_sequences import windows_of
from tests.batches import are_equal, epoch_of
from tests.clips import clips_in, write_clip_folder
from tests.series import series_in, write_series_folder

HALVES = ("train", "test")


@pytest.fixture(params=[(write_clip_folder, clips_in), (write_series_folder, series_in)], ids=["clips", "series"])
def data_of(request, tmp_path, monkeypatch):
    """A function that reads files of these lengths, four of each of two classes, for the training and for the test."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_folder, data_in = request.param

    def read(lengths, **options):
        root = tmp_path / "data"
        return data_in(root if root.exists() else write_folder(root, 4, HALVES, lengths), **options)

    return read


def places(*arguments) -> list[list[int]]:
    return [window.tolist() for window in windows_of(*arguments)]


def test_spread_frames_are_the_middles_of_equal_parts_and_windows_divide_the_parts():
    assert places("uniform", 10, 5, 1) == [[1, 3, 5, 7, 9]]
    assert places("uniform", 10, 5, 2) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert places("uniform", 7, 9, 1) == [list(range(7))]
    drawn = {tuple(*places("uniform", 10, 5, 1, seed)) for seed in range(50)}
    assert drawn == {(0, 2, 4, 6, 8), (1, 3, 5, 7, 9)}


def test_consecutive_windows_are_evenly_spaced_from_the_first_frame_to_the_last():
    assert places("consecutive", 10, 4, 1) == [[3, 4, 5, 6]]
    assert [window[0] for window in places("consecutive", 10, 4, 3)] == [0, 3, 6]
    assert {places("consecutive", 10, 4, 1, seed)[0][0] for seed in range(100)} == set(range(7))
    assert places("consecutive", 4, 4, 1, 9) == [[0, 1, 2, 3]]


def steps_of(file: str) -> np.ndarray:
    """Returns [steps, channels, height, width], or [steps, features]."""
    steps = np.load(file)
    return steps if steps.ndim == 2 else steps.transpose(0, 3, 1, 2)


def test_longer_samples_are_cut_and_shorter_ones_padded(data_of):
    data, numbers = data_of([2, 3, 4, 5]), torch.arange(8)
    assert data.spec.num_steps == 3
    frames, labels, lengths, _ = data.test_samples(numbers)
    assert lengths.tolist() == [2, 3, 3, 3] * 2
    assert labels.tolist() == [0] * 4 + [1] * 4
    for number, start in enumerate((0, 0, 0, 1)):  # the middle of those that are longer
        steps = steps_of(data.test_names(numbers)[number])
        assert np.array_equal(frames[number, : lengths[number]], steps[start : start + 3])
        assert not frames[number, lengths[number] :].any()
    assert data_of([], num_frames=2).test_samples(torch.arange(2)).lengths is None  # none is padded
    assert data_of([], num_frames=None).spec.num_steps == 5


def test_training_draws_windows_by_the_seed_and_the_epoch(data_of):
    data = data_of([9], num_frames=4)
    assert {data.train.windows([0], epoch)[0][1][0] for epoch in range(60)} == set(range(6))
    assert are_equal(epoch_of(data, 1), epoch_of(data_of([], num_frames=4), 1))
    assert not are_equal(epoch_of(data, 0), epoch_of(data, 1))
    assert not are_equal(epoch_of(data, 0), epoch_of(data_of([], num_frames=4, seed=2), 0))


def test_the_windows_of_a_test_sample_follow_each_other_in_a_batch(data_of):
    data = data_of([9, 2], num_frames=4, test_windows=3)
    batch = next(iter(data.test_dataloader()))
    steps = steps_of(data.test_names(torch.arange(1))[0])
    assert batch.labels.tolist() == [0, 0, 0]
    assert batch.lengths.tolist() == [4, 4, 4, 2, 2, 2, 4, 4, 4]
    assert np.array_equal(batch.frames[:3], np.stack([steps[:4], steps[2:6], steps[5:]]))
    one = data_of([], num_frames=4)
    assert torch.equal(next(iter(one.test_dataloader())).frames, data.test_samples(torch.arange(3)).frames)
    assert np.array_equal(one.test_samples(torch.arange(1)).frames[0], steps[2:6])
    uniform = data_of([], num_frames=3, sampling="uniform").test_samples(torch.arange(1))
    assert np.array_equal(uniform.frames[0], steps[[1, 4, 7]])


def test_training_samples_are_counted_by_class(data_of):
    data = data_of([3], validation_share=0.4)
    trained = [Path(data.train.samples[number].path).parent.name for number in data.train_indices]
    counts = data.class_counts().tolist()
    assert counts == [trained.count(name) for name in data.spec.class_names]
    assert sum(counts) == len(data.train) - len(data.validation_indices)


def test_a_table_gives_classes_groups_and_splits_and_the_checksum_tells_a_change_of_it_or_of_a_file(data_of, tmp_path):
    def read(rows, **options):
        (tmp_path / "labels.csv").write_text("\n".join(["path,label,group,split", *rows]))
        return data_of([], labels=str(tmp_path / "labels.csv"), **options)

    data_of([3])
    files = [(number, file) for number, file in enumerate(sorted((tmp_path / "data").glob("*/*/*.npy")))]
    rows = [f"{file},{'ab'[number % 2]},{number // 4},{'train' if number > 3 else 'test'}" for number, file in files]
    data = read(rows, validation_share=0.0)
    groups = [("test", "0"), *(("training", group) for group in "123")]
    expected = {(half, name, group): 2 for half, group in groups for name in "ab"}
    assert Counter((row["split"], row["class"], row["group"]) for row in data.table) == expected
    folds = [read(rows, fold=fold, num_folds=2).validation_indices for fold in (0, 1)]
    assert sorted(torch.cat(folds).tolist()) == list(range(12))
    assert read([*rows[:-1], rows[-1].replace(",b,", ",a,")], validation_share=0.0).sha256() != data.sha256()
    np.save(files[0][1], 1 + np.load(files[0][1]))
    assert read(rows, validation_share=0.0).sha256() != data.sha256()

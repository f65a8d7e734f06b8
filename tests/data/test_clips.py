import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.clip_index import find_clips
from quadrant_lstm.data.clip_loader import ClipLoader, FrameCache
from quadrant_lstm.data.clips import Clips
from quadrant_lstm.data.datamodule import EpochSampler
from quadrant_lstm.errors import UserError
from tests.clips import noise_clip, write_clip_folder, write_folder, write_gif

TRAINING = SimpleNamespace(training=True, testing=False)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


NONE = Augmentation()


def clips_in(root, augmentation=NONE, **changes) -> Clips:
    arguments = {
        "num_frames": 3, "frame_step": 1, "size": None, "channels": 3, "layout": "THWC", "test_share": 0.25,
        "validation_share": 0.25, "validation_seed": 0, "batch_size": 3, "num_workers": 0, "cache_gb": 0.0,
        "skip_broken": False, "seed": 1,
    }  # fmt: skip
    return Clips(str(root), augmentation=augmentation, **(arguments | changes))


def epoch_of(data: Clips, epoch: int) -> list:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def are_equal(batches, others) -> bool:
    pairs = zip(batches, others, strict=True)
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def test_short_clips_are_padded_and_long_ones_are_cut(tmp_path):
    data = clips_in(write_clip_folder(tmp_path / "data"))
    assert data.spec == ((3, 12, 16), 3, ("bright", "dark"))
    frames, labels, lengths = data.test_samples(torch.arange(8))  # of 2, 3, 4 and 5 frames
    assert lengths.tolist() == [2, 3, 3, 3] * 2
    assert labels.tolist() == [0] * 4 + [1] * 4
    for number in range(4):
        clip = np.load(tmp_path / f"data/test/bright/{number}.npy").transpose(0, 3, 1, 2)
        start = {0: 0, 1: 0, 2: 0, 3: 1}[number]  # the middle of clips that are longer
        assert np.array_equal(frames[number, : lengths[number]], clip[start : start + 3])
        assert not frames[number, lengths[number] :].any()


def test_every_nth_frame_is_taken(tmp_path):
    data = clips_in(write_clip_folder(tmp_path / "data"), num_frames=None, frame_step=2)
    frames, _, lengths = data.test_samples(torch.arange(4))
    assert lengths.tolist() == [1, 2, 2, 3]
    clip = np.load(tmp_path / "data/test/bright/3.npy").transpose(0, 3, 1, 2)
    assert np.array_equal(frames[3], clip[::2])


def test_clips_of_one_length_come_without_lengths(tmp_path):
    data = clips_in(write_clip_folder(tmp_path / "data"), num_frames=2)
    assert data.test_samples(torch.arange(2)).lengths is None


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"cache_gb": 1.0}, {"num_workers": 2, "cache_gb": 2e-6}])
def test_batches_depend_only_on_the_seed_and_the_epoch(options, tmp_path):
    root = write_clip_folder(tmp_path / "data")
    data, other = clips_in(root), clips_in(root, **options)
    for epoch in (0, 1, 1):  # the second time from the cache
        assert are_equal(epoch_of(data, epoch), epoch_of(other, epoch))
    assert not are_equal(epoch_of(data, 0), epoch_of(data, 1))
    assert not are_equal(epoch_of(data, 0), epoch_of(clips_in(root, seed=2), 0))


def test_a_last_batch_with_one_more_clip_is_read(tmp_path):
    data = clips_in(write_clip_folder(tmp_path / "data", per_class=5))
    sampler = EpochSampler(torch.arange(7), 3, seed=None, rank=0, num_ranks=2)
    (batch,) = ClipLoader(data.train, sampler, 0, data.pads)  # the seventh clip would leave the other process without
    assert batch.labels.tolist() == [0, 0, 0, 1]
    assert torch.equal(batch.lengths, torch.tensor([min(3, data.train.lengths[n]) for n in (0, 2, 4, 6)]))


def test_training_cuts_long_clips_at_random(tmp_path):
    data = clips_in(write_clip_folder(tmp_path / "data", num_frames=[9]), num_frames=2)
    starts = {data.train.start(0, 2, epoch) for epoch in range(40)}
    assert starts == set(range(8))
    assert data.train.start(0, 2, None) == 3


def test_a_cache_keeps_the_first_clips_that_fit_and_decodes_them_once():
    cache, decoded = FrameCache([(2, 3)] * 3, limit=13), []
    assert (len(cache.clips), cache.num_bytes) == (2, 12)

    def decode(out):
        decoded.append(1)
        out[:] = np.arange(6).reshape(2, 3)

    for _ in range(2):
        assert cache.read(1, decode).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(decoded) == 1
    assert cache.clips[0].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert not FrameCache([(2, 3)], limit=0).clips


def test_all_frames_of_a_clip_are_augmented_alike(tmp_path):
    data = clips_in(write_clip_folder(tmp_path / "data", num_frames=[3]), Augmentation(shift=6.0))
    data.trainer = TRAINING
    still = data.test_samples(torch.arange(4))
    still = still._replace(frames=still.frames[:, :1].expand(-1, 3, -1, -1, -1))
    frames = data.on_after_batch_transfer(still, 0).frames
    assert torch.equal(frames[:, 0], frames[:, 2])
    assert not torch.equal(frames[:, 0], still.frames[:, 0] / 255)


def test_without_halves_some_clips_of_each_class_are_drawn_for_the_test(tmp_path):
    root = write_clip_folder(tmp_path / "data", halves=("",), per_class=8)
    one, same, other = (find_clips(str(root), 0.25, seed, "THWC") for seed in (0, 0, 1))
    assert one == same
    assert one.test != other.test
    assert sorted((*one.train, *one.test)) == sorted((*other.train, *other.test))
    assert [clip.label for clip in one.test] == [0, 0, 1, 1]
    assert not set(one.train) & set(one.test)


def change(root, way):
    if way == "no folder":
        shutil.rmtree(root)
    elif way == "one half":
        shutil.rmtree(root / "test")
    elif way == "one class":
        shutil.rmtree(root / "train/dark")
    elif way == "missing in test":
        shutil.copytree(root / "train/dark", root / "train/dim")
    elif way == "no clips":
        (root / "train/dim").mkdir()
    elif way == "text":
        (root / "train/dark/notes.txt").write_text("")
    elif way == "animated":
        (root / "train/dark/many").mkdir()
        write_gif(root / "train/dark/many/clip.gif", noise_clip(2))


@pytest.mark.parametrize(
    ("way", "line"),
    [
        ("no folder", "data.root: .* is not a folder; give one with a folder of clips for each class"),
        ("one half", "data.root: .* holds train without the other of train and test; add it, or rename"),
        ("one class", "train: holds one folder, but each class needs one; add at least two"),
        ("missing in test", "test: has no class dim; add its folder, or remove .*train/dim"),
        ("no clips", "train/dim: holds no clips; add some, or remove the folder"),
        ("text", "notes.txt: is neither a folder nor a file of clips; remove it, or begin its name"),
        (
            "animated",
            "many: is a folder without still pictures, or with clips beside them; remove it, or begin its name",
        ),
    ],
)
def test_a_folder_with_another_structure_is_refused(way, line, tmp_path):
    root = write_clip_folder(tmp_path / "data")
    change(root, way)
    with pytest.raises(UserError, match=line):
        find_clips(str(root), 0.2, 0, "THWC")


def test_hidden_files_are_ignored(tmp_path):
    root = write_clip_folder(tmp_path / "data")
    (root / "train/dark/.notes.txt").write_text("")
    (root / "train/dark/Thumbs.db").write_bytes(b"")
    (root / "train/.cache").mkdir()
    assert find_clips(str(root), 0.2, 0, "THWC").class_names == ("bright", "dark")


@pytest.mark.parametrize("name", ["data", "data/train/dark", "data/test/dark"])
def test_folders_whose_names_are_not_utf_8_are_refused(name, tmp_path):
    write_clip_folder(tmp_path / "data")
    strange = os.fsdecode(os.fsencode(tmp_path / name) + b"\xe9")
    os.rename(tmp_path / name, strange)
    root = strange if name == "data" else tmp_path / "data"
    with pytest.raises(UserError, match=rf"data.root: the name of .*{name}\\xe9 is not UTF-8; rename the folder\.$"):
        find_clips(str(root), 0.2, 0, "THWC")


def test_clips_whose_names_are_not_utf_8_are_read_and_named(tmp_path):
    root = write_clip_folder(tmp_path / "data")
    for half in ("train", "test"):
        os.rename(root / half / "dark/0.npy", os.fsencode(root / half / "dark") + b"/\xe90.npy")
    data = clips_in(root)
    assert len(epoch_of(data, 0)) == 2
    assert re.fullmatch("[0-9a-f]{64}", data.sha256())
    assert str(root / r"test/dark/\xe90.npy") in data.test_names(torch.arange(8))
    Path(os.fsdecode(os.fsencode(root / "test/dark") + b"/\xe90.npy")).write_bytes(b"")
    assert clips_in(root, skip_broken=True).skipped[0].startswith(rf"{root}/test/dark/\xe90.npy: cannot be read")


def test_arrays_need_a_layout(tmp_path):
    with pytest.raises(UserError, match="data.layout: null, but .*0.npy is an array; write e.g. data.layout=THWC"):
        find_clips(str(write_clip_folder(tmp_path / "data")), 0.2, 0, None)


def test_a_class_with_one_clip_cannot_be_divided(tmp_path):
    root = write_clip_folder(tmp_path / "data", halves=("",), per_class=2)
    (root / "dark/1.npy").unlink()
    with pytest.raises(UserError, match="dark: holds one clip, but training and test need one each; add another."):
        find_clips(str(root), 0.2, 0, "THWC")


def test_videos_need_an_extra_even_if_broken_clips_are_skipped(tmp_path, monkeypatch):
    root = write_clip_folder(tmp_path / "data")
    (root / "train/dark/clip.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r'clip.mp4: needs av, which is not installed; install it with .*\[video\]"'):
        clips_in(root, skip_broken=True)


def test_broken_clips_are_refused_together_or_skipped(tmp_path):
    root = write_clip_folder(tmp_path / "data")
    for name in ("train/bright/1.npy", "test/dark/0.npy"):
        (root / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"train/bright/1.npy: cannot be read .* \(1 other is broken, too\); replace"):
        clips_in(root)
    data = clips_in(root, skip_broken=True)
    assert (len(data.train), len(data.test)) == (7, 7)
    assert [error.partition(":")[0] for error in data.skipped] == [
        str(root / "train/bright/1.npy"),
        str(root / "test/dark/0.npy"),
    ]
    for number in range(4):
        (root / f"test/dark/{number}.npy").write_bytes(b"")
    with pytest.raises(UserError, match="data.root: no test clip of class dark can be read; add one, or remove"):
        clips_in(root, skip_broken=True)


def test_links_that_lead_nowhere_are_broken_clips(tmp_path):
    root = write_clip_folder(tmp_path / "data")
    (root / "train/dark/link.npy").symlink_to("nothing.npy")
    (root / "train/dark/loop.npy").symlink_to("loop.npy")
    data = clips_in(root, skip_broken=True)
    assert ["link.npy" in data.skipped[0], "loop.npy" in data.skipped[1]] == [True, True]


def test_a_clip_is_decoded_again_only_when_it_has_changed(tmp_path, monkeypatch):
    import quadrant_lstm.data.clip_index as index

    root, examined = write_clip_folder(tmp_path / "data"), []

    def note_of(clip, frame_format):
        examined.append(clip.name)
        return real(clip, frame_format)

    real = index.note_of
    monkeypatch.setattr(index, "note_of", note_of)
    first = clips_in(root).sha256()
    assert len(examined) == 16
    assert clips_in(root).sha256() == first
    assert len(examined) == 16
    np.save(root / "train/dark/2.npy", np.zeros((7, 12, 16, 3), np.uint8))
    assert clips_in(root, num_frames=None).spec.num_steps == 7
    assert examined[16:] == ["2.npy"]
    assert clips_in(root).sha256() != first


def test_a_killed_process_that_examines_clips_costs_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("quadrant_lstm.data.clip_index.note_of", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match="data.num_workers: a process that examines clips was killed, .*; write fewer"):
        clips_in(write_clip_folder(tmp_path / "data"), num_workers=1)


def test_pictures_that_change_places_are_noticed(tmp_path):
    frames = np.stack([np.zeros((6, 6, 3), np.uint8), np.full((6, 6, 3), 9, np.uint8)])
    for name in ("bright/1", "bright/2", "dark/1", "dark/2"):
        write_folder(tmp_path / "data" / name, frames)
    before = clips_in(tmp_path / "data").sha256()
    first, second, other = (tmp_path / "data/dark/1" / name for name in ("frame1.png", "frame2.png", "other"))
    for old, new in ((first, other), (second, first), (other, second)):
        old.rename(new)
    assert clips_in(tmp_path / "data").sha256() != before


def test_a_clip_that_breaks_during_the_training_is_named(tmp_path):
    root = write_clip_folder(tmp_path / "data")
    data = clips_in(root, num_workers=1)
    for file in root.glob("train/*/*.npy"):
        file.unlink()
    with pytest.raises(UserError, match=r"npy: cannot be read as a clip \(No such file or directory\), but could when"):
        epoch_of(data, 0)


def test_clips_of_different_sizes_are_refused(tmp_path):
    root = write_clip_folder(tmp_path / "data")
    np.save(root / "train/dark/2.npy", np.zeros((2, 6, 16, 3), np.uint8))
    with pytest.raises(UserError, match=r"2.npy: its frames are of 6 x 16, but those of .* of 12 x 16; add data.size"):
        clips_in(root)
    assert clips_in(root, size=[4, 5]).spec.frame_shape == (3, 4, 5)


def test_reading_processes_need_a_system_that_forks(tmp_path, monkeypatch):
    root = write_clip_folder(tmp_path / "data")
    monkeypatch.delattr("os.fork")
    with pytest.raises(UserError, match="data.num_workers: 2, but this system cannot .*; write data.num_workers=0"):
        clips_in(root, num_workers=2)

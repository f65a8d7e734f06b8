import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from quadrant_lstm.data import clip_frames, datamodule
from quadrant_lstm.data.clip_frames import find_clip_files, is_clip
from quadrant_lstm.data.clips import ClipLoader
from quadrant_lstm.data.datamodule import EpochSampler
from quadrant_lstm.data.feature_cache import CACHE, FeatureCache
from quadrant_lstm.data.splits import find_samples
from quadrant_lstm.errors import UserError
from tests.batches import are_equal, epoch_of
from tests.clips import augmentation, clips_in, noise_clip, write_animation, write_clip_folder, write_folder, write_gif


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes, each with clips of 2, 3, 4 and 5 frames for the training and for the test, and hidden files."""
    folder = write_clip_folder(tmp_path / "data")
    for name in ("train/dark/.notes.txt", "train/dark/Thumbs.db"):
        (folder / name).touch()
    (folder / "train/.cache").mkdir()
    return folder


@pytest.mark.parametrize(
    ("sampling", "options"),
    [
        ("consecutive", {"num_workers": 2}),
        ("uniform", {"cache_gb": 1.0}),
        ("consecutive", {"num_workers": 2, "cache_gb": 2e-6}),
    ],
)
def test_batches_are_the_same_whoever_reads_them(sampling, options, root):
    data, other = (clips_in(root, sampling=sampling, **changes) for changes in ({}, options))
    for epoch in (0, 1, 1):  # the second time from the cache
        assert are_equal(epoch_of(data, epoch), epoch_of(other, epoch))


def test_spawned_processes_examine_clips_and_read_the_same_batches(root, tmp_path, monkeypatch):
    expected = [epoch_of(clips_in(root), epoch) for epoch in (0, 1)]
    monkeypatch.setenv("HOME", str(tmp_path / "without_notes"))
    monkeypatch.setattr(datamodule, "START_METHOD", "spawn")
    data = clips_in(root, num_workers=1, cache_gb=1.0)
    loader = data.train_dataloader()
    for epoch, batches in enumerate(expected):
        loader.sampler.set_epoch(epoch)
        assert are_equal(list(loader), batches)
    assert data.train.is_read.any()


def test_every_nth_frame_is_taken(root):
    data = clips_in(root, num_frames=None, frame_step=2)
    assert data.spec[:3] == ((3, 12, 16), 3, ("bright", "dark"))
    frames, _, lengths, _ = data.test_samples(torch.arange(4))
    assert lengths.tolist() == [1, 2, 2, 3]
    assert np.array_equal(frames[3], np.load(root / "test/bright/3.npy")[::2].transpose(0, 3, 1, 2))


def test_a_rate_that_repeats_frames_or_leaves_one_of_each_clip_is_warned_of(root, tmp_path):
    for half in ("train", "test"):
        for name in ("one", "two"):
            for number in range(4):
                write_animation(tmp_path / "animated" / half / name / f"{number}.webp", noise_clip(10, seed=number))

    def warned(root, **changes) -> list[str]:
        given = clips_in(root, **changes).warnings
        return [warning for warning in given if re.match("data.f(ps|rame_step):", warning)]

    animated = tmp_path / "animated"
    repeated = "data.fps: 60, but the clips have 25 frames per second, so frames are repeated; lower it"
    assert warned(animated, fps=60.0) == [repeated]
    assert warned(animated, fps=2.0) == ["data.fps: 2 leaves 16 of 16 clips a single frame; raise it"]
    assert warned(root, frame_step=4) == ["data.frame_step: 4 leaves 12 of 16 clips a single frame; lower it"]
    assert not warned(animated, fps=30.0) and not warned(root, frame_step=3)
    assert not warned(root, frame_step=9, num_frames=1)


class Frozen(nn.Module):
    """Returns the first two pixels of a row of each frame, weighted."""

    def __init__(self, weight: float = 2.0, row: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight), requires_grad=False)
        self.row, self.num_encoded = row, 0

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        self.num_encoded += len(frames)
        return self.weight * frames[:, 0, self.row, :2]


def test_features_of_a_frozen_encoder_are_computed_once(root):
    def features_of(encoder: nn.Module, epochs: Sequence[int], num_workers: int = 0) -> list[torch.Tensor]:
        data = clips_in(root, num_workers=num_workers, test_windows=2)
        weight = encoder.weight.item()
        encoder.weight.data.fill_(7.0)
        data.keep_features(encoder)
        encoder.weight.data.fill_(weight)  # a resumed run loads the weights later
        batches = [batch for epoch in epochs for batch in epoch_of(data, epoch)] + [*data.test_dataloader()]
        assert all(batch.frames.shape[1:] == (3, 3, 12, 16) for batch in batches)
        return [batch.features for batch in batches]

    plain = clips_in(root, test_windows=2)
    batches = [batch for epoch in range(3) for batch in epoch_of(plain, epoch)] + [*plain.test_dataloader()]
    expected = [2.0 * batch.frames[:, :, 0, 0, :2] / 255 for batch in batches]
    encoder, other = Frozen(), Frozen(3.0)
    for batch, values in zip(features_of(encoder, range(3)), expected, strict=True):
        assert torch.equal(batch, values)
    assert encoder.num_encoded == 1 + 32 * (6 + 2)  # a probe, then chunks: 6 training clips, 2 test batches with others
    files = CACHE.expanduser().glob("*/*")
    pixels = expected[0][0, 0].numpy().tobytes()
    file, damaged = next((file, bytearray(content)) for file in files if pixels in (content := file.read_bytes()))
    damaged[damaged.index(pixels)] ^= 1
    file.write_bytes(damaged)
    num_encoded = encoder.num_encoded
    for batch, values in zip(features_of(encoder, range(3), 1), expected, strict=True):  # of another run
        assert torch.equal(batch, values)
    assert encoder.num_encoded == num_encoded + 1 + 32  # the probe, and the damaged frame in a chunk
    assert torch.equal(features_of(other, [0])[0], 1.5 * expected[0])
    np.save(root / "test/dark/more.npy", noise_clip(5, seed=9))
    num_encoded = encoder.num_encoded
    features_of(encoder, range(3))
    assert encoder.num_encoded == num_encoded + 1 + 32  # the clip that was added


def test_features_that_are_deleted_during_an_epoch_are_computed_again(root):
    expected = [2.0 * batch.frames[:, :, 0, 0, :2] / 255 for batch in epoch_of(clips_in(root), 0)]
    data = clips_in(root)
    data.keep_features(Frozen())
    loader = data.train_dataloader()
    loader.sampler.set_epoch(0)
    for batch, features in zip(loader, expected, strict=True):
        assert torch.equal(batch.features, features)
        shutil.rmtree(CACHE.expanduser())


def test_features_of_a_clip_that_has_changed_are_not_kept(root):
    data = clips_in(root)
    data.keep_features(Frozen())
    clip = data.train.samples[int(data.train_indices[0])].path
    np.save(clip, np.load(clip)[::-1].copy())
    with pytest.raises(UserError, match=f"{clip}: has changed since this command started; resume the run"):
        epoch_of(data, 0)
    assert data.notes[clip].sha256 not in {file.name for file in CACHE.expanduser().glob("*/*")}


def test_features_of_an_encoder_that_differs_in_more_than_its_weights_are_not_used():
    folders = []
    for row in (0, 1, 0):
        cache = FeatureCache(Frozen(row=row), (3, 12, 16), ())
        cache.prepare()
        folders.append(cache.folder)
    assert folders[0] == folders[2] != folders[1]


def test_a_last_batch_with_one_more_clip_is_read(root):
    sampler = EpochSampler(torch.arange(7), 3, seed=None, rank=0, num_ranks=2)
    (batch,) = ClipLoader(clips_in(root).train, sampler, 0)  # the seventh clip would leave the other process without
    assert batch.labels.tolist() == [0, 0, 1, 1]
    assert batch.lengths.tolist() == [2, 3, 2, 3]


def test_a_cache_keeps_the_first_clips_that_fit_and_decodes_them_once(root):
    reader = clips_in(root, cache_gb=9 * 12 * 16 * 3 / 1e9).train  # clips of 2, 3, 4 and 5 frames
    assert [len(clip) for clip in reader.kept] == [2, 3, 4]
    frames = np.empty((2, 2, 3, 12, 16, 3), np.uint8)
    reader.read(reader.windows([1, 1], 0), frames[0])
    (root / "train/bright/1.npy").unlink()
    reader.read(reader.windows([1, 1], 0), frames[1])
    assert np.array_equal(frames[0], frames[1])
    assert reader.is_read.tolist() == [0, 1, 0]


def test_all_frames_of_a_clip_are_augmented_alike(tmp_path):
    data = clips_in(write_clip_folder(tmp_path / "data", num_frames=[3]), augmentation=augmentation(shift=6.0))
    data.trainer = SimpleNamespace(training=True)
    still = data.test_samples(torch.arange(4))
    still = still._replace(frames=still.frames[:, :1].expand(-1, 3, -1, -1, -1))
    frames = data.on_after_batch_transfer(still, 0).frames
    assert torch.equal(frames[:, 0], frames[:, 2])
    assert not torch.equal(frames[:, 0], still.frames[:, 0] / 255)


@pytest.mark.parametrize("inside", ["more", "1.gif"])
def test_a_folder_in_the_place_of_a_clip_holds_still_pictures(inside, root):
    folder = root / "train/dark/folder"
    folder.mkdir()
    if inside == "more":
        (folder / inside).mkdir()
    else:
        write_gif(folder / inside, noise_clip(2))
    with pytest.raises(UserError, match="folder: is a folder, but not of still pictures"):
        find_samples(str(root), None, None, is_clip, "clip")


def test_clips_whose_names_are_not_utf_8_are_read_and_named(root):
    for half in ("train", "test"):
        (root / half / "dark/0.npy").rename(f"{root}/{half}/dark/\udce90.npy")
    data = clips_in(root)
    assert len(epoch_of(data, 0)) == 2
    assert re.fullmatch("[0-9a-f]{64}", data.sha256())
    assert str(root / r"test/dark/\xe90.npy") in data.test_names(torch.arange(8))
    Path(f"{root}/test/dark/\udce90.npy").write_bytes(b"")
    assert clips_in(root, skip_broken=True).skipped[0].startswith(rf"{root}/test/dark/\xe90.npy: cannot be read")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_arrays_need_a_layout_and_videos_an_extra_even_if_broken_clips_are_skipped(num_workers, root, monkeypatch):
    options = {"skip_broken": True, "num_workers": num_workers}
    with pytest.raises(UserError, match="0.npy: is an array, but data.layout=null does not tell .*; train with e.g."):
        clips_in(root, layout=None, **options)
    (root / "train/dark/clip.mp4").write_bytes(b"nothing")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r'clip.mp4: needs av, which is not installed; install it with .*\[video\]"'):
        clips_in(root, **options)


def test_broken_clips_are_refused_together_or_skipped(root):
    for name in ("train/bright/1.npy", "test/dark/0.npy"):
        (root / name).write_bytes(b"")
    (root / "train/dark/link.npy").symlink_to("nothing.npy")
    (root / "train/dark/loop.npy").symlink_to("loop.npy")
    rule = r"train/bright/1.npy: cannot be read .* \(3 other clips cannot be read, either\); replace"
    with pytest.raises(UserError, match=rule):
        clips_in(root)
    data = clips_in(root, skip_broken=True)
    assert (len(data.train), len(data.test)) == (7, 7)
    names = [error.removeprefix(f"{root}/").partition(":")[0] for error in data.skipped]
    assert names == ["train/bright/1.npy", "train/dark/link.npy", "train/dark/loop.npy", "test/dark/0.npy"]
    for number in range(4):
        (root / f"test/dark/{number}.npy").write_bytes(b"")
    with pytest.raises(UserError, match="data.root: no test sample of class dark is left; add some, remove the"):
        clips_in(root, skip_broken=True)


@pytest.fixture
def examined(monkeypatch) -> list[str]:
    """The clips that have been examined, one after the other."""
    names, examine = [], clip_frames.examine
    monkeypatch.setattr(clip_frames, "examine", lambda clip, **how: names.append(str(clip)) or examine(clip, **how))
    return names


def test_a_clip_is_decoded_again_only_when_it_has_changed(root, examined):
    first = clips_in(root).sha256()
    assert clips_in(root).sha256() == first
    assert len(examined) == 16
    np.save(root / "train/dark/2.npy", np.zeros((7, 12, 16, 3), np.uint8))
    assert clips_in(root, num_frames=None).spec.num_steps == 7
    assert examined[16:] == [str(root / "train/dark/2.npy")]
    second = clips_in(root).sha256()
    assert second != first
    file = root / "train/dark/2.npy"
    before = file.stat()
    np.save(file, np.ones((7, 12, 16, 3), np.uint8))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as rsync does
    assert clips_in(root).sha256() != second


def test_after_a_kill_only_the_clips_without_a_valid_note_are_examined(root, examined, monkeypatch):
    lines, examine = [], clip_frames.examine

    def kill_at_the_third(clip, **options):
        if clip.name == "2.npy":
            (file,) = Path.home().glob(".cache/quadrant_lstm/clips/*.jsonl")
            lines.extend(filter(None, file.read_text().splitlines()))
            raise KeyboardInterrupt
        return examine(clip, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(clip_frames, "examine", kill_at_the_third)
        clips_in(root)
    assert len(lines) == 2
    (file,) = Path.home().glob(".cache/quadrant_lstm/clips/*.jsonl")
    file.write_text("\n".join([lines[0], '["0", null]', "\0{", lines[1][:50]]))
    examined.clear()
    notes = clips_in(root).notes
    assert len(examined) == len(set(examined)) == 15
    assert str(root / "train/bright/0.npy") not in examined
    assert clips_in(root).notes == notes
    assert len(examined) == 15


def test_a_killed_process_that_examines_clips_costs_one_line(root, monkeypatch):
    monkeypatch.setattr(clip_frames, "examine", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match="data.num_workers: a process that examines clips was killed, .*; write fewer"):
        clips_in(root, num_workers=1)


def test_a_clip_that_breaks_during_the_training_is_named(root):
    data = clips_in(root)
    for file in root.glob("train/*/*.npy"):
        file.unlink()
    with pytest.raises(UserError, match=r"npy: cannot be read as a clip \(No such file or directory\), but could when"):
        epoch_of(data, 0)


def test_clips_of_different_sizes_are_refused(root):
    np.save(root / "train/dark/2.npy", np.zeros((2, 6, 16, 3), np.uint8))
    rule = "data.size: null, but .* of 12 x 16 and .*2.npy has frames of 6 x 16; add data.size"
    with pytest.raises(UserError, match=rule):
        clips_in(root)
    assert clips_in(root, size=[4, 5]).spec.frame_shape == (3, 4, 5)
    with pytest.raises(UserError, match="data.fit: pad, but data.size=null resizes none; add data.size="):
        clips_in(root, fit="pad")


def test_single_pictures_are_clips_only_on_request(root, tmp_path):
    for seed, name in enumerate(("dark", "light")):
        write_folder(tmp_path / "pictures" / name, noise_clip(8, seed=seed))
    write_gif(root / "train/dark/single.gif", noise_clip(1))
    clips_in(root)
    write_animation(root / "train/dark/single.png", noise_clip(1))
    for folder, file in ((root, "train/dark/single.png"), (tmp_path / "pictures", "dark/frame1.png")):
        with pytest.raises(UserError, match=f"{file}: is a single picture; put the frames of a clip into a folder"):
            clips_in(folder)
        assert clips_in(folder, num_frames=1).spec.num_steps == 1


def test_clips_are_found_in_a_folder_also_broken_ones_and_files_that_are_none_are_named(tmp_path, capsys):
    for name in ("one/1.gif", "two/more/3.gif"):
        write_gif(tmp_path / name, noise_clip(2))
    (tmp_path / "one/0.gif").write_bytes(b"GIF89a")
    write_folder(tmp_path / "two/pictures", noise_clip(2))
    (tmp_path / "two/more/4.m4v").touch()
    found = [str(clip.relative_to(tmp_path)) for clip in find_clip_files(str(tmp_path))]
    assert found == ["one/0.gif", "one/1.gif", "two/more/3.gif", "two/pictures"]
    assert capsys.readouterr().err == f"images: {tmp_path} holds files that are left out: 1 .m4v.\n"
    assert list(find_clip_files(str(tmp_path / "two/pictures"))) == [tmp_path / "two/pictures"]
    assert len(list(find_clip_files(str(tmp_path / "one")))) == 2

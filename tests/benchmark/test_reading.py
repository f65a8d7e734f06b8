import re

import numpy as np
import pytest

from quadrant_lstm.benchmark import clip_reading


@pytest.mark.parametrize("name", ["pictures", "video"])
def test_both_ways_read_all_frames(name, tmp_path, monkeypatch):
    pytest.importorskip("av", reason="needs PyAV")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(clip_reading, "NUM_CLIPS", 8)
    write, decode = (getattr(clip_reading, f"{verb}_{name}") for verb in ("write", "decode"))
    line = clip_reading.reading_row(name, tmp_path / "clips", write, decode, rounds=2)
    assert re.fullmatch(rf"\| {name} (\| \d+ \(\d+ to \d+\) ){{2}}\| [\d.]+ \([\d.]+ to [\d.]+\) \|", line)
    assert decode(next((tmp_path / "clips/train/one").iterdir())) == clip_reading.NUM_FRAMES
    data = clip_reading.clips_in(tmp_path / "clips", clip_reading.NUM_FRAMES)
    assert len(data.train) == 8
    assert sum(len(batch.labels) for batch in data.train_dataloader()) == 7  # one is for validation


def test_frames_move_by_a_pixel():
    frames = clip_reading.smooth_frames(np.random.default_rng(0))
    assert frames.shape == (clip_reading.NUM_FRAMES, clip_reading.SIZE, clip_reading.SIZE, 3)
    assert np.array_equal(frames[1, :-1, :-1], frames[0, 1:, 1:])

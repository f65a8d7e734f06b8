import re

import numpy as np
import pytest

from quadrant_lstm.benchmark import clips


@pytest.mark.parametrize("name", ["pictures", "video"])
def test_both_ways_read_all_frames(name, tmp_path, monkeypatch):
    pytest.importorskip("av", reason="needs PyAV")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(clips, "NUM_CLIPS", 8)
    write, decode = (getattr(clips, f"{verb}_{name}") for verb in ("write", "decode"))
    line = clips.reading_row(name, tmp_path / "clips", write, decode, rounds=2)
    assert re.fullmatch(rf"\| {name} (\| \d+ \(\d+ to \d+\) ){{2}}\| [\d.]+ \([\d.]+ to [\d.]+\) \|", line)
    data = clips.clips_in(tmp_path / "clips")
    assert len(data.train) == 8
    assert sum(len(batch.labels) for batch in data.train_dataloader()) == 7  # one is for validation


def test_frames_move_by_a_pixel():
    frames = clips.smooth_frames(np.random.default_rng(0))
    assert frames.shape == (clips.NUM_FRAMES, clips.SIZE, clips.SIZE, 3)
    assert np.array_equal(frames[1, :-1, :-1], frames[0, 1:, 1:])

"""Checks which frames of a clip are read."""

import numpy as np
import pytest

from quadrant_lstm.data.clip_frames import FrameFormat, Note, Sampling, examine, read_frames
from tests.clips import write_animation, write_video

SPREAD, WINDOW = Sampling("uniform", 1, None), Sampling("consecutive", 1, None)


def test_spread_frames_are_the_middles_of_equal_parts_and_windows_divide_the_parts():
    assert SPREAD.places(10, 5, 0, 1).tolist() == [1, 3, 5, 7, 9]
    assert [SPREAD.places(10, 5, window, 2).tolist() for window in (0, 1)] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert SPREAD.places(7, 7, 0, 1).tolist() == list(range(7))
    drawn = {tuple(SPREAD.drawn_places(10, 5, seed).tolist()) for seed in range(50)}
    assert drawn == {(0, 2, 4, 6, 8), (1, 3, 5, 7, 9)}


def test_consecutive_windows_are_evenly_spaced_from_the_first_frame_to_the_last():
    assert WINDOW.places(10, 4, 0, 1).tolist() == [3, 4, 5, 6]
    assert [WINDOW.places(10, 4, window, 3)[0] for window in range(3)] == [0, 3, 6]
    assert {WINDOW.drawn_places(10, 4, seed)[0] for seed in range(100)} == set(range(7))
    assert WINDOW.drawn_places(4, 4, 9).tolist() == [0, 1, 2, 3]


def test_every_nth_frame_is_available():
    note = Note(None, 7, 1, 1, "", None, None, [])
    assert Sampling("uniform", 3, None).available(note).tolist() == [0, 3, 6]


@pytest.mark.parametrize("fps", [5.0, 10.0, 50.0])
def test_a_rate_means_the_same_for_files_of_any_rate(fps, tmp_path):
    """Each frame has the brightness of the hundredth of a second at which it appears."""
    times = {
        "a.mp4": range(0, 200, 4),
        "b.mp4": range(0, 200, 2),
        "c.mkv": [0, 3, 11, 12, 20, 21, 22, 40, *range(50, 200, 5)],
    }
    for name, hundredths in times.items():
        frames = np.stack([np.full((32, 32, 3), hundredth, np.uint8) for hundredth in hundredths])
        write_video(tmp_path / name, frames, times=[*hundredths])
        note = examine(tmp_path / name, FrameFormat(1, None, None, "stretch"))
        numbers = Sampling("uniform", 1, fps).available(note)
        assert abs(len(numbers) - 2 * fps) <= 1
        moments = np.arange(len(numbers)) / fps
        expected = [max(time for time in hundredths if time / 100 <= moment + 1e-6) for moment in moments]
        read = np.empty((len(numbers), 32, 32, 1), np.uint8)
        read_frames(tmp_path / name, FrameFormat(1, None, None, "stretch"), numbers.tolist(), read, note.key_frames)
        assert np.abs(read[:, 16, 16, 0].astype(int) - expected).max() <= 3  # after compression


def test_a_rate_counts_the_durations_of_an_animation(tmp_path):
    write_animation(tmp_path / "clip.webp", np.random.default_rng(0).integers(0, 255, (10, 8, 8, 3)).astype(np.uint8))
    note = examine(tmp_path / "clip.webp", FrameFormat(3, None, None, "stretch"))
    assert note.seconds == pytest.approx(0.4)
    assert Sampling("uniform", 1, 12.5).available(note).tolist() == [0, 2, 4, 6, 8]

"""Checks which frames of a clip are read."""

import numpy as np
import pytest

from quadrant_lstm.data.clip_frames import FrameFormat, Note, examine, frames_available, read_frames
from quadrant_lstm.data.file_sequences import windows_of
from tests.clips import write_animation, write_video


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


def test_every_nth_frame_is_available():
    note = Note(None, 7, 1, 1, "", None, None, [])
    assert frames_available(note, 3, None).tolist() == [0, 3, 6]


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("a.mp4", range(0, 200, 4)),
        ("b.mp4", range(0, 200, 2)),
        ("c.mkv", [0, 3, 11, 12, 20, 21, 22, 40, *range(50, 200, 5)]),
    ],
)
def test_a_rate_means_the_same_for_files_of_any_rate(name, times, tmp_path):
    """Each frame has the brightness of the hundredth of a second at which it appears."""
    frames = np.stack([np.full((32, 32, 3), hundredth, np.uint8) for hundredth in times])
    write_video(tmp_path / name, frames, times=[*times])
    note = examine(tmp_path / name, FrameFormat(1, None, None, "stretch"))
    for fps in (5.0, 10.0, 50.0):
        numbers = frames_available(note, 1, fps)
        assert abs(len(numbers) - 2 * fps) <= 1
        moments = np.arange(len(numbers)) / fps
        expected = [max(time for time in times if time / 100 <= moment + 1e-6) for moment in moments]
        read = np.empty((len(numbers), 32, 32, 1), np.uint8)
        read_frames(tmp_path / name, FrameFormat(1, None, None, "stretch"), numbers.tolist(), read, note.key_frames)
        assert np.abs(read[:, 16, 16, 0].astype(int) - expected).max() <= 3  # after compression


@pytest.mark.parametrize("digits", [3, 4])
def test_rounded_times_of_a_file_change_no_frame(digits):
    places = [place for place in range(30) if place != 10]  # in thirtieths of a second; one frame was dropped
    note = Note(None, len(places), 1, 1, "", 1.0, [round(place / 30, digits) for place in places], [])
    for fps in (15, 30):
        moments = range(0, 30, 30 // fps)
        expected = [max(number for number, place in enumerate(places) if place <= moment) for moment in moments]
        assert frames_available(note, 1, fps).tolist() == expected


def test_a_rate_counts_the_durations_of_an_animation(tmp_path):
    write_animation(tmp_path / "clip.webp", np.random.default_rng(0).integers(0, 255, (10, 8, 8, 3)).astype(np.uint8))
    note = examine(tmp_path / "clip.webp", FrameFormat(3, None, None, "stretch"))
    assert note.seconds == pytest.approx(0.4)
    assert frames_available(note, 1, 12.5).tolist() == [0, 2, 4, 6, 8]

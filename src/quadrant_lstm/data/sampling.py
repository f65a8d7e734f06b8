"""Chooses the frames of a clip that a network reads.

frames of the file -> every n-th, or those at a rate (available) -> as many as the network has steps (places)
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from quadrant_lstm.data.clip_frames import Note, frame_times
from quadrant_lstm.kinds import SamplingKind

Numbers = Int[np.ndarray, " frames"]


class Sampling(NamedTuple):
    kind: SamplingKind
    frame_step: int
    fps: float | None  # instead of frame_step: frames per second, whatever the rate of the file

    def available(self, note: Note) -> Numbers:
        """Returns the numbers of the frames to choose from. A frame is shown until the next one appears."""
        if self.fps is None or note.seconds is None:
            return np.arange(0, note.num_frames, self.frame_step)
        shown = np.arange(max(1, math.ceil(note.seconds * self.fps - 1e-6))) / self.fps
        return (np.searchsorted(frame_times(note), shown + 1e-6, side="right") - 1).clip(0)

    def places(self, available: int, length: int, window: int, num_windows: int) -> Numbers:
        """Returns which of the available frames make up one of several windows, which are evenly spaced. A single one
        is the middle of the clip, or with frames spread over the clip, the middle of its parts.
        """
        if self.kind == "consecutive":
            spare = available - length
            start = spare // 2 if num_windows == 1 else round(window * spare / (num_windows - 1))
            return np.arange(start, start + length)
        return spread(available, length, (window + 0.5) / num_windows)

    def drawn_places(self, available: int, length: int, seed: int) -> Numbers:
        """Returns the places of a window that is drawn at random for the training."""
        if self.kind == "consecutive":
            start = seed % (available - length + 1)
            return np.arange(start, start + length)
        return spread(available, length, np.random.default_rng(seed).random())


def spread(available: int, length: int, offset: float) -> Numbers:
    """Divides the frames into equal parts, and returns one of each part: offset 0 is its begin, 1 its end. It is the
    same in all parts, so that what moves evenly does so from step to step.
    """
    return ((np.arange(length) + offset) * available / length).astype(int).clip(max=available - 1)

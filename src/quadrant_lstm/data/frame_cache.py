"""Keeps decoded frames of clips in memory that worker processes share, up to a limit.

Clips are kept in the order of the folder, so that the order of reading does not change which ones are kept. The memory
is used as clips are read.
"""

import mmap
from collections.abc import Callable, Sequence

import numpy as np


def shared_memory(num_bytes: int) -> np.ndarray:
    """Returns zeros in uint8, which this process shares with those that it forks later."""
    return np.frombuffer(mmap.mmap(-1, max(1, num_bytes)), np.uint8, num_bytes)


class FrameCache:
    """`sizes` are the bytes of each clip. Workers must be forked from the process that makes the cache."""

    def __init__(self, sizes: Sequence[int], limit: int):
        ends = np.cumsum(sizes)
        self.count = int(np.searchsorted(ends, limit, side="right"))  # of the clips that are kept
        self.starts = np.concatenate([[0], ends])[: self.count]
        self.num_bytes = int(ends[self.count - 1]) if self.count else 0
        self.memory, self.is_filled = shared_memory(self.num_bytes), shared_memory(self.count)

    def holds(self, number: int) -> bool:
        """Tells whether the clip is one of those that are kept."""
        return number < self.count

    def read(self, number: int, shape: Sequence[int], decode: Callable[[np.ndarray], None]) -> np.ndarray:
        """Returns all frames of a clip that is kept, uint8 in that shape. The first time, `decode` writes them."""
        start = int(self.starts[number])
        frames = self.memory[start : start + int(np.prod(shape))].reshape(shape)
        if not self.is_filled[number]:  # two workers may both fill it, with the same frames
            decode(frames)
            self.is_filled[number] = 1
        return frames

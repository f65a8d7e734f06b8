"""The shape of a frame -> the shape after each stage of the conv encoder. Plain Python: a config whose sizes do not
fit is refused before torch is imported.
"""

from collections.abc import Sequence

from quadrant_lstm.data.frames import Shape
from quadrant_lstm.errors import UserError


def encoder_stages(frame_shape: Shape, filters: Sequence[int], kernel_size: int, pool_size: int) -> dict[str, Shape]:
    """Stage -> (channels, height, width) of what leaves it; raises UserError at the first that is left nothing."""
    channels, height, width = frame_shape
    stages: dict[str, Shape] = {}
    for number, count in enumerate(filters, start=1):
        if kernel_size > min(height, width):
            raise UserError(
                f"model.kernel_size: {kernel_size} does not fit stage conv{number}: what comes in is "
                f"{channels} x {height} x {width} (channels x height x width); "
                f"write a smaller kernel_size or fewer model.filters than {list(filters)}."
            )
        channels, height, width = count, height - kernel_size + 1, width - kernel_size + 1
        stages[f"conv{number}"] = (channels, height, width)
    if pool_size > min(height, width):
        raise UserError(
            f"model.pool_size: {pool_size} leaves nothing at stage pool: what comes in is "
            f"{channels} x {height} x {width} (channels x height x width); write at most {min(height, width)}."
        )
    stages["pool"] = (channels, height // pool_size, width // pool_size)
    return stages


def pooled_shape(shape: Shape, blocks: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """What leaves blocks of padded convs, each with a 2x2 pool at its end; raises UserError where nothing would."""
    channels, height, width = shape
    for number, filters in enumerate(blocks, start=1):
        if min(height, width) < 2:
            raise UserError(
                f"model.blocks: {len(blocks)} leave nothing at the pool of block {number}: what comes in is "
                f"{channels} x {height} x {width} (channels x height x width); write at most {number - 1}."
            )
        channels, height, width = filters[-1], -(-height // 2), -(-width // 2)
    return channels, height, width

"""Computes the output shapes of a network's stages and checks that the network fits the data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quadrant_lstm.data.orderings import Shape
from quadrant_lstm.errors import UserError

NEVER_SHARE = (  # encoders that encode every frame in full, also with model.shared_tiles
    "quadrant_lstm.model.encoder.PaddedEncoder",
    "quadrant_lstm.model.encoder.Backbone",
    "quadrant_lstm.model.encoder.RowsEncoder",
)
NEEDS_PIECES = "model: deep joins the pieces of images, which clips do not have; choose another, e.g. model=join."


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Returns e.g. (2, 2) for 2 and for [2, 2]; an nn.MaxPool2d keeps its sizes as they were passed."""
    rows, columns = (size, size) if isinstance(size, int) else size
    return rows, columns


def plain_pool_size(pool: Any) -> tuple[int, int] | None:
    """Returns the rows and columns of an nn.MaxPool2d without overlap, padding or dilation, or None for another."""
    size = pair(pool.kernel_size)
    plain = (pair(pool.stride), pair(pool.padding), pair(pool.dilation)) == (size, (0, 0), (1, 1))
    return size if plain else None


def encoded_shape(
    frame_shape: Shape, filters: Sequence[int], kernel_size: int, pool_size: int, group: str = "model"
) -> tuple[int, int, int]:
    """Returns the output shape of convs without padding and a pool; raises UserError if a stage would be empty.

    `group` is that of the keys which the error names.
    """
    channels, height, width = frame_shape
    for number, count in enumerate(filters, start=1):
        if kernel_size > min(height, width):
            raise UserError(
                f"{group}.kernel_size: {kernel_size} does not fit stage conv{number}, whose input is "
                f"{channels} x {height} x {width} (channels x height x width); "
                f"write a smaller kernel_size or fewer {group}.filters than {list(filters)}."
            )
        channels, height, width = count, height - kernel_size + 1, width - kernel_size + 1
    if pool_size > min(height, width):
        raise UserError(
            f"{group}.pool_size: {pool_size} does not fit stage pool, whose input is "
            f"{channels} x {height} x {width} (channels x height x width); write at most {min(height, width)}."
        )
    return channels, height // pool_size, width // pool_size


def pooled_shape(shape: Shape, blocks: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """Returns the output shape of blocks of padded convs and a 2x2 pool; raises UserError if there are too many."""
    channels, height, width = shape
    for number, filters in enumerate(blocks, start=1):
        if min(height, width) < 2:
            raise UserError(
                f"model.blocks: {len(blocks)} blocks do not fit: the input of the pool of block {number} is "
                f"{channels} x {height} x {width} (channels x height x width); write at most {number - 1}."
            )
        channels, height, width = filters[-1], -(-height // 2), -(-width // 2)
    return channels, height, width


def check_conv_encoder(
    model: Mapping[str, Any], data: Mapping[str, Any], frame_shape: Shape | None, group: str = "model"
) -> None:
    """Raises UserError for a ConvEncoder that does not fit. `frame_shape` is None if the data is not downloaded yet."""
    check_shared_tiles(model, data)
    if frame_shape:
        encoded_shape(frame_shape, model["filters"], model["kernel_size"], model["pool_size"], group)


def check_join(model: Mapping[str, Any], data: Mapping[str, Any], frame_shape: Shape | None) -> None:
    encoder = model["encoder"]
    if encoder["_target_"] == "quadrant_lstm.model.encoder.ConvEncoder":
        check_conv_encoder({**encoder, **model}, data, frame_shape, "model.encoder")
    elif encoder["_target_"] not in NEVER_SHARE:
        check_shared_tiles(model, data)


def check_deep(model: Mapping[str, Any], data: Mapping[str, Any], frame_shape: Shape | None) -> None:
    if "orderings" not in data:
        raise UserError(NEEDS_PIECES)
    check_reads_orderings(data, "leave it out, or write model=cnn_lstm model.shared_tiles=false")
    if model["recurrent"]["_target_"] == "quadrant_lstm.model.conv_lstm.ConvLSTM":
        raise UserError(
            "model/recurrent: conv_lstm reads maps, but deep gives it vectors; choose another, or model=join."
        )
    if frame_shape:
        channels, height, width = frame_shape
        pooled_shape((channels, height // len(data["orderings"]), width), model["blocks"])


def check_shared_tiles(model: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    if len(data.get("orderings", [])) > 1 and model.get("shared_tiles"):
        check_reads_orderings(data, "write one ordering into data.orderings, or add model.shared_tiles=false")


def check_reads_orderings(data: Mapping[str, Any], remedy: str) -> None:
    """Raises UserError if frames may follow other orderings than data.orderings."""
    for key in ("train_orderings", "test_orderings"):
        if data.get(key):
            raise UserError(f"data.{key}: this network reads frames of data.orderings only; {remedy}.")


CHECKS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any], Shape | None], None]] = {
    "quadrant_lstm.model.network.CNNLSTM": check_conv_encoder,
    "quadrant_lstm.model.network.Join": check_join,
    "quadrant_lstm.model.network.Reshaped": check_conv_encoder,
    "quadrant_lstm.model.deep.DeepCNNLSTM": check_deep,
}

"""Writes checkpoints atomically with a checksum, and reads them back.

A checkpoint is the zip archive that torch.save makes, and torch.load reads it. The archive's comment is the SHA-256 of
everything before it, so that a file that was damaged later is refused.
"""

import hashlib
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from quadrant_lstm.errors import UserError
from quadrant_lstm.files import write_atomically

CHECKSUM_PREFIX = b"sha256:"
COMMENT_LENGTH = len(CHECKSUM_PREFIX) + 64  # bytes


def write_checkpoint(checkpoint: dict[str, Any], file: Path) -> None:
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    archive = buffer.getvalue()
    assert archive.endswith(b"\0\0")  # a zip archive without a comment ends with the comment's length, 0
    archive = archive[:-2] + struct.pack("<H", COMMENT_LENGTH)
    write_atomically(file, archive + CHECKSUM_PREFIX + hashlib.sha256(archive).hexdigest().encode())


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Raises UserError for a file that is missing, damaged, or was not written by write_checkpoint."""
    if not file.is_file():
        raise UserError(
            f"{file}: is missing: no epoch of this run has finished; resume the run with: "
            f"python train.py run={file.parent.parent}"
        )
    try:
        content = file.read_bytes()
        archive, checksum = content[:-COMMENT_LENGTH], content[-COMMENT_LENGTH:]
        if checksum != CHECKSUM_PREFIX + hashlib.sha256(archive).hexdigest().encode():
            raise ValueError("its checksum does not match")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{file}: cannot be read ({reason}); it is damaged: restore it, or train again.") from error


class AtomicCheckpointIO(CheckpointIO):
    """A plugin for Lightning's Trainer."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)

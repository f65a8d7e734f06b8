"""A checkpoint -> a file that is whole or absent, and back.

It is written beside its place, made safe on the disk, and renamed: whatever ends the process, the file there is the
one before or the one after. It is torch's zip archive, which torch.load reads as any other, with a SHA-256 of all
before it as the archive's comment, so that a file that was damaged since is refused.
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
from quadrant_lstm.run_folder import write_whole

MARK = b"sha256:"
COMMENT = len(MARK) + 64  # bytes


def write_checkpoint(checkpoint: dict[str, Any], file: Path) -> None:
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    archive = buffer.getvalue()
    assert archive.endswith(b"\0\0")  # a zip archive ends with the length of its comment
    archive = archive[:-2] + struct.pack("<H", COMMENT)
    write_whole(file, archive + MARK + hashlib.sha256(archive).hexdigest().encode())


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Raises UserError for one that is missing, damaged, or not written by write_checkpoint."""
    if not file.is_file():
        raise UserError(
            f"{file}: is missing: no epoch of this run has finished; go on with: "
            f"python train.py run={file.parent.parent}"
        )
    try:
        content = file.read_bytes()
        archive, checksum = content[:-COMMENT], content[-COMMENT:]
        if checksum != MARK + hashlib.sha256(archive).hexdigest().encode():
            raise ValueError("its checksum is another")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{file}: cannot be read ({reason}); it is damaged: train again, or restore it.") from error


class WholeCheckpoints(CheckpointIO):
    """For Lightning's Trainer."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)

"""Keeps the features of a frozen encoder in a file, so that each frame is decoded and encoded only once.

The file, in ~/.cache/quadrant_lstm/features/, has a row for each frame of each clip. Its name is a hash of the clips,
of how their frames are converted, and of the encoder with its weights, so that other runs use it, too. The system keeps
in memory what has been read lately. A row that was not written, or not completely, has a wrong checksum.
"""

import contextlib
import hashlib
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import pad

from quadrant_lstm.data.orderings import Shape, scaled
from quadrant_lstm.errors import UserError

CACHE = Path("~/.cache/quadrant_lstm/features")
CHUNK = 32  # frames that are encoded together, always as many, so that their features do not depend on the batch
SALT = np.uint32(0x9E3779B9)  # so that the checksum of an empty row is not 0
Rows = Int[np.ndarray, "*windows steps"]


def checksum(rows: np.ndarray) -> np.ndarray:
    return rows.sum(-1, dtype=np.uint32) ^ SALT


class FeatureCache:
    """`encoder` maps frames [N, C, H, W] to features [N, ...]. `contents` tells the clips and the format of frames."""

    def __init__(self, encoder: nn.Module, frame_shape: Shape, num_rows: int, contents: object):
        self.encoder, self.frame_shape, self.num_rows, self.contents = encoder, frame_shape, num_rows, contents
        self.file = Path()  # none yet
        self.kept: np.ndarray | None = None

    @torch.no_grad()
    def prepare(self) -> None:
        """Finds or makes the file. Call it when the encoder has its weights: a resumed run builds it with others."""
        if self.file.name:
            return
        like = next(self.encoder.parameters())
        probe = torch.rand(1, *self.frame_shape, generator=torch.Generator().manual_seed(0)).to(like)
        features = self.encoder(probe)  # depend on all that makes the encoder, also on what is no weight
        self.feature_shape = features.shape[1:]
        self.shape = self.num_rows, self.feature_shape.numel() + 1
        digest = hashlib.sha256(repr((str(self.encoder), self.frame_shape, self.contents)).encode())
        for name, values in (self.encoder.state_dict() | {"features of a probe": features}).items():
            digest.update(name.encode() + values.cpu().flatten().view(torch.uint8).numpy().tobytes())
        for folder in (CACHE.expanduser(), Path(tempfile.gettempdir())):
            self.file = folder / f"{digest.hexdigest()[:32]}.features"
            with contextlib.suppress(OSError):  # of a home that cannot be written
                folder.mkdir(parents=True, exist_ok=True)
                with self.file.open("ab") as opened:
                    opened.truncate(4 * math.prod(self.shape))  # without content, it takes no space
                return

    @property
    def is_constant(self) -> bool:
        """Whether the encoder is still frozen."""
        return not any(weights.requires_grad for weights in self.encoder.parameters())

    def read(self, rows: Rows) -> tuple[np.ndarray, Bool[np.ndarray, "*windows steps"]]:
        """Returns float32 [windows, steps, values], with zeros where a row is -1, and which of them are missing."""
        if self.kept is None:
            self.kept = np.memmap(self.file, np.uint32, "r", shape=self.shape)
        values = self.kept[rows]
        is_missing = (values[..., -1] != checksum(values[..., :-1])) & (rows >= 0)
        values[rows < 0] = 0
        return values[..., :-1].view(np.float32), is_missing

    def write(self, rows: Int[np.ndarray, " frames"], features: np.ndarray) -> None:
        values = features.view(np.uint32)
        values = np.concatenate([values, checksum(values)[:, None]], axis=1)
        try:
            with self.file.open("r+b") as opened:  # a full disk would end a process that writes to mapped memory
                for row, content in zip(rows.tolist(), values, strict=True):
                    opened.seek(row * content.nbytes)
                    opened.write(content.tobytes())
        except OSError as error:
            raise UserError(f"{self.file}: cannot be written ({error.strerror}); make space, and resume.") from error

    @torch.no_grad()
    def features(
        self, frames: UInt8[Tensor, "windows steps channels height width"], rows: Rows
    ) -> Float[Tensor, "windows steps ..."]:
        """Returns the features of the frames in these rows, and zeros where a row is -1. Computes what is missing."""
        values, missing = self.read(rows)
        if missing.any():
            weights = next(self.encoder.parameters())
            chunks = frames[torch.from_numpy(missing)].split(CHUNK)
            padded = (pad(chunk, (0, 0, 0, 0, 0, 0, 0, CHUNK - len(chunk))).to(weights.device) for chunk in chunks)
            encoded = torch.cat([self.encoder(scaled(chunk, weights.dtype)) for chunk in padded])[: missing.sum()]
            values[missing] = encoded.flatten(1).float().cpu().numpy()
            self.write(rows[missing], values[missing])
        return torch.from_numpy(values).reshape(*rows.shape, *self.feature_shape)

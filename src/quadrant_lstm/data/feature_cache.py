"""Keeps the features of a frozen encoder in files, so that each frame is decoded and encoded only once.

A folder in ~/.cache/quadrant_lstm/features/ is named by a hash of how frames are converted, and of the encoder with its
weights. It has a file for each clip, named by the clip's checksum, with a row for each frame, so other runs and folders
with the same clips use it, too. The system keeps in memory what has been read lately. A row that was not written, or
not completely, has a wrong checksum.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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


class Part(NamedTuple):
    """Frames of a clip by their numbers."""

    clip: str  # its checksum
    frames: Int[np.ndarray, " steps"]


def checksum(rows: np.ndarray) -> np.ndarray:
    return rows.sum(-1, dtype=np.uint32) ^ SALT


class FeatureCache:
    """`encoder` maps frames [N, C, H, W] to features [N, ...]. `conversion` tells how files become frames."""

    def __init__(self, encoder: nn.Module, frame_shape: Shape, conversion: object):
        self.encoder, self.frame_shape, self.conversion = encoder, frame_shape, conversion
        self.folder = Path()  # none yet

    @torch.no_grad()
    def prepare(self) -> None:
        """Finds or makes the folder. Call it when the encoder has its weights: a resumed run builds it with others."""
        if self.folder.name:
            return
        like = next(self.encoder.parameters())
        probe = torch.rand(1, *self.frame_shape, generator=torch.Generator().manual_seed(0)).to(like)
        features = self.encoder(probe)  # depend on all that makes the encoder, also on what is no weight
        self.feature_shape = features.shape[1:]
        digest = hashlib.sha256(repr((str(self.encoder), self.frame_shape, self.conversion)).encode())
        for name, values in (self.encoder.state_dict() | {"features of a probe": features}).items():
            digest.update(name.encode() + values.cpu().flatten().view(torch.uint8).numpy().tobytes())
        self.folder = CACHE.expanduser() / digest.hexdigest()[:32]
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            self.folder = Path(tempfile.mkdtemp(prefix="quadrant_lstm_features_"))

    @property
    def is_constant(self) -> bool:
        """Whether the encoder is still frozen."""
        return not any(weights.requires_grad for weights in self.encoder.parameters())

    def read(self, parts: Sequence[Part]) -> tuple[np.ndarray, Bool[np.ndarray, "parts steps"]]:
        """Returns float32 [parts, steps, values], and which are missing and may hold anything. Padding is 0."""
        lengths = [len(part.frames) for part in parts]
        rows = np.zeros((len(parts), max(lengths), self.feature_shape.numel() + 1), np.uint32)
        for row, (clip, frames) in zip(rows, parts, strict=True):
            with contextlib.suppress(FileNotFoundError), (self.folder / clip).open("rb", buffering=0) as opened:
                for content, frame in zip(row, frames.tolist(), strict=False):
                    opened.seek(frame * content.nbytes)
                    opened.readinto(content)  # may end early
        is_real = np.arange(max(lengths)) < np.array(lengths)[:, None]
        return rows[..., :-1].view(np.float32), is_real & (rows[..., -1] != checksum(rows[..., :-1]))

    def write(self, part: Part, features: np.ndarray) -> None:
        rows = features.view(np.uint32)
        rows = np.concatenate([rows, checksum(rows)[:, None]], axis=1)
        file = self.folder / part.clip
        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it
            file.touch()
            with file.open("r+b") as opened:
                for frame, content in zip(part.frames.tolist(), rows, strict=True):
                    opened.seek(frame * content.nbytes)
                    opened.write(content.tobytes())
        except OSError as error:
            raise UserError(f"{file}: cannot be written ({error.strerror}); make space, and resume.") from error

    @torch.no_grad()
    def features(
        self,
        frames: UInt8[Tensor, "windows steps channels height width"],
        parts: Sequence[Part],
        values: np.ndarray,
        missing: Bool[np.ndarray, "windows _"],
    ) -> Float[Tensor, "windows steps ..."]:
        """Returns the values that were read, after it has computed and kept those that are missing, from the frames."""
        num_steps = values.shape[1]
        if missing.any():
            weights = next(self.encoder.parameters())
            chunks = frames[:, :num_steps][torch.from_numpy(missing)].split(CHUNK)
            padded = (pad(chunk, (0, 0, 0, 0, 0, 0, 0, CHUNK - len(chunk))).to(weights.device) for chunk in chunks)
            encoded = torch.cat([self.encoder(scaled(chunk, weights.dtype)) for chunk in padded])[: missing.sum()]
            values[missing] = encoded.flatten(1).float().cpu().numpy()
            for (clip, numbers), row, is_missing in zip(parts, values, missing, strict=True):
                if is_missing.any():
                    self.write(Part(clip, numbers[is_missing[: len(numbers)]]), row[is_missing])
        found = pad(torch.from_numpy(values), (0, 0, 0, frames.shape[1] - num_steps))
        return found.reshape(*frames.shape[:2], *self.feature_shape)

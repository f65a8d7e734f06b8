"""Writes clips in all formats."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quadrant_lstm.data.augmentation import ClipAugmentation
from quadrant_lstm.data.clips import Clips


def noise_clip(num_frames: int, height: int = 12, width: int = 16, seed: int = 0) -> np.ndarray:
    """Returns uint8 [frames, height, width, 3] of which lossless formats keep every pixel."""
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3)).astype(np.uint8)


def write_folder(path: Path, frames: np.ndarray) -> None:
    path.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(path / f"frame{number}.png")


def write_animation(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=others, duration=40, lossless=True)


def write_gif(path: Path, frames: np.ndarray) -> None:
    """Reduces the colours of each frame to 64 levels of grey, which the file keeps."""
    write_animation(path, frames // 4 * 4)


def write_video(
    path: Path,
    frames: np.ndarray,
    codec: str | None = None,
    times: Sequence[int] | None = None,
    container: dict[str, str] | None = None,
    **stream_options: object,
) -> None:
    """`times` are those of the frames, in hundredths of a second; without them, each lasts four."""
    av = pytest.importorskip("av", reason="needs PyAV")

    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec or ("libvpx-vp9" if path.suffix == ".webm" else "libx264"), rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for name, value in stream_options.items():
            setattr(stream.codec_context, name, value)
        if times:
            stream.codec_context.time_base = Fraction(1, 100)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24" if frames.shape[3] == 3 else "rgba")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 100)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "folder": write_folder,
    "clip.png": write_animation,
    "clip.webp": write_animation,
    "clip.npy": np.save,
    "clip.npz": lambda path, frames: np.savez_compressed(path, frames),
}


def write_clip_folder(root: Path, per_class: int = 4, halves=("train", "test"), num_frames=range(2, 6)) -> Path:
    """Writes clips of two classes as .npy files. Those of class "dark" are dark."""
    for half in halves:
        for name, brightest in (("bright", 255), ("dark", 60)):
            (root / half / name).mkdir(parents=True)
            for number in range(per_class):
                frames = noise_clip(num_frames[number % len(num_frames)], seed=number)
                np.save(root / half / name / f"{number}.npy", (frames * (brightest / 255)).astype(np.uint8))
    return root


def write_video_folder(root: Path) -> Path:
    """Writes mp4 files of two classes, of 4 to 28 frames, unless they are there. Those of class "dark" are dark."""
    for half, lengths in (("train", (12, 20, 28)), ("test", (4, 13, 27))):
        for name, brightest in (("bright", 255), ("dark", 60)):
            (root / half / name).mkdir(parents=True, exist_ok=True)
            for number in lengths:
                frames = (noise_clip(number, 24, 24, seed=number) * (brightest / 255)).astype(np.uint8)
                if not (path := root / half / name / f"{number}.mp4").exists():
                    write_video(path, frames)
    return root


def augmentation(**changes) -> ClipAugmentation:
    return ClipAugmentation(**dict.fromkeys((field.name for field in fields(ClipAugmentation)), 0.0) | changes)


def clips_in(root, **changes) -> Clips:
    arguments = {
        "labels": None, "group": None, "num_frames": 3, "sampling": "consecutive", "frame_step": 1, "fps": None,
        "test_windows": 1, "size": None, "fit": "stretch", "channels": 3, "layout": "THWC", "test_share": 0.25,
        "validation_share": 0.25, "validation_seed": 0, "batch_size": 3, "num_workers": 0, "cache_gb": 0.0,
        "skip_broken": False, "seed": 1, "augmentation": augmentation(),
    }  # fmt: skip
    return Clips(str(root), **(arguments | changes))

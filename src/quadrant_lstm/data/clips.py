"""Examines and divides clips in files, and gives Lightning batches of padded clips with their lengths.

files -> uint8 frames, cached in memory -> as many as a network reads, or padded -> batch -> device -> augmentation
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from filelock import FileLock
from jaxtyping import Int64
from torch import Tensor, nn

from quadrant_lstm import kinds
from quadrant_lstm.data import splits
from quadrant_lstm.data.augmentation import ClipAugmentation
from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, Note, examine, frames_available, is_clip, state_of
from quadrant_lstm.data.clip_loader import ClipLoader, ClipReader
from quadrant_lstm.data.datamodule import Batch, WorkerLoader, killed_workers_explained
from quadrant_lstm.data.feature_cache import FeatureCache
from quadrant_lstm.data.file_sequences import FileSequences
from quadrant_lstm.data.orderings import SequenceSpec, scaled
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import WriteError, write_atomically
from quadrant_lstm.text import with_progress

# Lengths, sizes, times and checksums
#
# The notes are kept in ~/.cache/quadrant_lstm/clips/, so that a clip which has not changed is not decoded again. Each
# is a line of JSON that is written as soon as a clip has been examined. The last line about a clip is valid.


CACHE = Path("~/.cache/quadrant_lstm/clips")
EXAMINATION = 6


def examine_clips(
    root: Path, paths: Sequence[Path], frame_format: FrameFormat, num_workers: int
) -> tuple[dict[Path, Note], list[str]]:
    """Returns notes of the clips that can be read, and the errors of the others.

    Processes that start together wait for the first.
    """
    if frame_format.size is None and frame_format.fit != "stretch":
        raise UserError(f"data.fit: {frame_format.fit}, but data.size=null resizes none; add data.size=[HEIGHT,WIDTH].")
    name = hashlib.sha256(repr((EXAMINATION, str(root.absolute()), frame_format)).encode()).hexdigest()[:16]
    file = CACHE.expanduser() / f"{name}.jsonl"
    names = {path: os.path.relpath(path, root) for path in paths}
    with contextlib.ExitStack() as stack:
        stored, opened = {}, None
        with contextlib.suppress(OSError, WriteError):  # of a home that cannot be written
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(file.with_suffix(".lock")))
            stored = stored_notes(file)
            opened = stack.enter_context(file.open("ab", buffering=0))
        kept = {path: stored[name] for path, name in names.items() if name in stored}
        found: dict[Path, Note | str] = {path: note for path, note in kept.items() if note.state == state_of(path)}
        new = [path for path in paths if path not in found]
        for path, result in zip(new, examine_in_workers(new, frame_format, num_workers), strict=True):
            found[path] = result
            if opened and isinstance(result, Note):
                with contextlib.suppress(OSError):
                    opened.write(f"{json.dumps([names[path], *result])}\n".encode())
    notes = {path: note for path in paths if isinstance(note := found[path], Note)}
    return notes, [error for path in paths if isinstance(error := found[path], str)]


def stored_notes(file: Path) -> dict[str, Note]:
    """Reads the notes, and rewrites the file if it has lines that are outdated, damaged or, after a kill, cut off."""
    content = file.read_bytes() if file.exists() else b""
    notes = {}
    for line in content.splitlines():
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            name, *values = json.loads(line)
            notes[name] = Note(*values)
    if content != (valid := "".join(f"{json.dumps([name, *note])}\n" for name, note in notes.items()).encode()):
        write_atomically(file, valid)
    return notes


def examine_in_workers(clips: Sequence[Path], frame_format: FrameFormat, num_workers: int) -> Iterator[Note | str]:
    """Yields a Note for each clip, or what is broken. Shows a progress bar on a terminal."""
    if not clips:
        return
    loader = WorkerLoader(partial(examine, frame_format=frame_format), clips, num_workers)
    reason = "a process that examines clips was killed, perhaps because memory was short"
    with killed_workers_explained(f"data.num_workers: {reason}; write fewer."):
        for note in with_progress(loader, "reading clips", len(clips)):
            if isinstance(note, UserError) and not isinstance(note, BrokenClip):
                raise note
            yield note if isinstance(note, Note) else str(note)


# The data of a run


class Clips(FileSequences):
    """conf/data/clips.yaml explains the arguments. Raises UserError for a clip that cannot be read, unless broken clips
    are skipped: `skipped` then lists them.
    """

    features: FeatureCache | None = None

    def __init__(
        self,
        root: str | None,
        labels: str | None,
        group: str | None,
        num_frames: kinds.Count | None,
        sampling: kinds.SamplingKind,
        frame_step: kinds.Count,
        fps: kinds.Positive | None,
        test_windows: kinds.Count,
        size: kinds.Size | None,
        fit: kinds.Fit,
        channels: Literal[1, 3],
        layout: kinds.Layout | None,
        test_share: kinds.Share,
        validation_share: kinds.BelowOne,
        validation_seed: kinds.Natural,
        batch_size: kinds.Count,
        num_workers: kinds.Natural,
        cache_gb: kinds.NonNegative,
        skip_broken: bool,
        seed: kinds.Natural,
        augmentation: ClipAugmentation,
        fold: kinds.Natural | None = None,
        num_folds: kinds.AtLeastTwo = 5,
    ):
        if fps and frame_step > 1:
            raise UserError(f"data.frame_step: {frame_step}, but data.fps={fps} chooses the frames; leave one out.")
        folder, names, samples, origin = splits.find_samples(root, labels, group, is_clip, "clip")
        frame_format = FrameFormat(channels, None if size is None else (size[0], size[1]), layout, fit)
        self.notes, self.skipped = examine_clips(folder, [path for path, *_ in samples], frame_format, num_workers)
        if self.skipped and not skip_broken:
            number = len(self.skipped) - 1
            others = f" ({number} other{' is' if number == 1 else 's are'} broken, too)" if number else ""
            raise UserError(f"{self.skipped[0]}{others}; replace or remove it, or add data.skip_broken=true.")
        readable = [clip for clip in samples if clip.path in self.notes]
        drawing = test_share, validation_share, validation_seed, fold, num_folds
        train_clips, held_out, test_clips, how = splits.divide(readable, names, *drawing)
        sizes = {(note.height, note.width): path for path, note in self.notes.items()}
        if len(sizes) > 1:
            (size, path), (other_size, other) = list(sizes.items())[:2]
            raise UserError(
                f"{other}: its frames are of {other_size[0]} x {other_size[1]}, but those of {path} of {size[0]} x "
                f"{size[1]}; add data.size=[HEIGHT,WIDTH]."
            )
        ((height, width),) = sizes
        untimed = next((path for path, note in self.notes.items() if note.seconds is None), None)
        if fps and untimed:
            raise UserError(f"data.fps: {fps}, but {untimed} has no times; leave it out, and write data.frame_step.")
        available = {path: frames_available(note, frame_step, fps) for path, note in self.notes.items()}
        longest = max(map(len, available.values()))
        spec = SequenceSpec((channels, height, width), num_frames or longest, names)
        files, reading = (self.notes, frame_format), (available, sampling, spec, seed)
        train = ClipReader(*files, round(1e9 * cache_gb), train_clips, *reading, 1)
        test = ClipReader(*files, 0, test_clips, *reading, test_windows)
        seconds = sum(note.seconds or 0 for note in self.notes.values())
        amount = f"{sum(note.num_frames for note in self.notes.values()):,} frames"
        amount += f", {seconds:,.0f} s" if seconds else ""
        checksums = {path: note.sha256 for path, note in self.notes.items()}
        super().__init__(spec, train, test, held_out, batch_size, seed, folder, (origin, how), checksums, amount)
        self.num_workers, self.augmentation = num_workers, augmentation

    def keep_features(self, encoder: nn.Module) -> None:
        if self.augmentation.transforms(*self.spec.frame_shape[1:]):
            return
        clips = [(note.sha256, note.num_frames) for note in self.notes.values()]
        contents, num_frames = (self.test.frame_format, clips), sum(number for _, number in clips)
        self.features = FeatureCache(encoder, self.spec.frame_shape, num_frames, contents)

    def loader(self, data: ClipReader, indices: Int64[Tensor, " samples"], seed: int | None = None) -> ClipLoader:
        return ClipLoader(data, self.sampler(indices, seed), self.num_workers, self.features)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        is_training = self.trainer and self.trainer.training
        return batch._replace(frames=scaled(self.augmentation(batch.frames) if is_training else batch.frames))

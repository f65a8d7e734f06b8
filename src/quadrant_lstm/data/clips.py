"""Examines and divides clips in files, and gives Lightning batches of padded clips with their lengths.

files -> uint8 frames, cached in memory -> as many as a network reads, or padded -> batch -> device -> augmentation
"""

import contextlib
import hashlib
import json
import logging
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from quadrant_lstm import kinds
from quadrant_lstm.data import clip_frames, datamodule, splits
from quadrant_lstm.data.augmentation import ClipAugmentation
from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, Note
from quadrant_lstm.data.datamodule import Batch, BatchLoader, EpochSampler, WorkerLoader, killed_workers_explained
from quadrant_lstm.data.feature_cache import FeatureCache, Part
from quadrant_lstm.data.file_sequences import FileSequences, Numbers, Window, WindowReader
from quadrant_lstm.data.orderings import SequenceSpec, scaled
from quadrant_lstm.errors import UserError
from quadrant_lstm.text import counted, with_progress

log = logging.getLogger(__name__)

# Lengths, sizes, times and checksums
#
# The notes are kept in ~/.cache/quadrant_lstm/clips/, so that a clip which has not changed is not decoded again. Each
# is a line of JSON that is added as soon as a clip has been examined.


CACHE = Path("~/.cache/quadrant_lstm/clips")
EXAMINATION = 9


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
    with contextlib.ExitStack() as stack:
        stored, opened = dict[str | None, Note](), None
        with contextlib.suppress(OSError):  # of a home that cannot be written
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(file.with_suffix(".lock")))
            stored = stored_notes(file)
            opened = stack.enter_context(file.open("ab", buffering=0))
        states = {path: clip_frames.state_of(path) for path in paths}
        found: dict[Path, Note | str] = {path: stored[state] for path, state in states.items() if state in stored}
        new = [path for path in paths if path not in found]
        for path, result in zip(new, examine_in_workers(new, frame_format, num_workers), strict=True):
            found[path] = result
            if opened and isinstance(result, Note):
                with contextlib.suppress(OSError):
                    opened.write(f"\n{json.dumps(result)}".encode())
    notes = {path: note for path in paths if isinstance(note := found[path], Note)}
    return notes, [error for path in paths if isinstance(error := found[path], str)]


def stored_notes(file: Path) -> dict[str | None, Note]:
    """Returns notes by the states of their clips. Passes over lines that are damaged or, after a kill, cut off."""
    notes = {}
    for line in file.read_bytes().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            note = Note(*json.loads(line))
            notes[note.state] = note
    return notes


def examine_in_workers(clips: Sequence[Path], frame_format: FrameFormat, num_workers: int) -> Iterator[Note | str]:
    """Yields a Note for each clip, or what is broken. Shows a progress bar on a terminal."""
    if not clips:
        return
    loader = WorkerLoader(partial(clip_frames.examine, frame_format=frame_format), clips, num_workers)
    reason = "a process that examines clips was killed, perhaps because memory was short"
    with killed_workers_explained(f"data.num_workers: {reason}; write fewer."):
        for note in with_progress(loader, "reading clips", len(clips)):
            if isinstance(note, UserError) and not isinstance(note, BrokenClip):
                raise note
            yield note if isinstance(note, Note) else str(note)


# Batches of clips, which worker processes read. Which frames are read depends only on the seed and the epoch


PREFETCH = 2  # batches for each worker
SHORT = 4  # times as many frames as a network reads: all frames of shorter clips are encoded in the first epoch


def shared_memory(*shape: int) -> UInt8[Tensor, "..."]:
    """Returns zeros, which this process shares with those that it starts later. Memory is used when it is written."""
    if datamodule.START_METHOD == "spawn":
        return torch.zeros(shape, dtype=torch.uint8).share_memory_()
    size = math.prod(shape)  # a container has more of this memory than of /dev/shm, which torch would use
    return torch.frombuffer(mmap.mmap(-1, max(1, size)), dtype=torch.uint8)[:size].view(shape)


class ClipReader(WindowReader):
    """Reads some of the available frames of clips, or all.

    Frames are uint8 [windows, steps, height, width, channels]. The first clips are kept whole, as many as fit into
    `cache_bytes`, whatever the order in which they are read. Their memory is shared with the workers that read.
    `reading` are the arguments of WindowReader.
    """

    def __init__(self, notes: Mapping[Path, Note], frame_format: FrameFormat, cache_bytes: int, *reading: Any):
        super().__init__(*reading)
        self.frame_format = frame_format
        self.notes = [notes[clip.path] for clip in self.samples]
        channels, height, width = self.spec.frame_shape
        self.frame_shape = height, width, channels
        ends = np.cumsum(list(map(len, self.numbers)))
        ends = ends[ends * math.prod(self.frame_shape) <= cache_bytes]
        kept = shared_memory(int(ends.max(initial=0)), *self.frame_shape)
        self.kept = kept.tensor_split(ends.tolist())[:-1]
        self.is_read = shared_memory(len(self.kept))

    def read(self, windows: Sequence[Window | None], out: np.ndarray, uses_cache: bool = True) -> None:
        """Writes the windows to `out`, with padding. What is in the place of None remains."""
        for window, frames in zip(windows, out, strict=True):
            if window is None:
                continue
            (number, places), length = window, len(window[1])
            if uses_cache and number < len(self.kept):
                if not self.is_read[number]:  # two workers may both read it
                    self.decode(number, self.numbers[number], self.kept[number].numpy())
                    self.is_read[number] = 1
                frames[:length] = self.kept[number].numpy()[places]
            else:
                self.decode(number, self.numbers[number][places], frames[:length])
            frames[length:] = 0

    def frames(self, windows: Sequence[Window]) -> UInt8[Tensor, "windows steps channels height width"]:
        frames = torch.empty(len(windows), self.num_steps, *self.frame_shape, dtype=torch.uint8)
        self.read(windows, frames.numpy())
        return frames.movedim(4, 2)

    def read_alone(self, window: Window) -> np.ndarray:
        """Returns one window, which may have more frames than a network reads."""
        frames = np.empty((1, max(self.num_steps, len(window[1])), *self.frame_shape), np.uint8)
        self.read([window], frames, uses_cache=False)
        return frames

    def decode(self, number: int, frames: Numbers, out: np.ndarray) -> None:
        path, key_frames = self.samples[number].path, self.notes[number].key_frames
        try:
            clip_frames.read_frames(path, self.frame_format, frames.tolist(), out, key_frames)
        except BrokenClip as error:
            raise UserError(f"{error}, but could when this command started; restore it, and resume the run.") from error

    def parts(self, windows: Sequence[Window]) -> list[Part]:
        return [Part(self.notes[number].sha256, self.numbers[number][places]) for number, places in windows]


Request = tuple[int, list[Window | None], bool]  # the number of a batch, and the arguments of ClipReader.read


def read_into(slots: UInt8[Tensor, "..."], reader: ClipReader, request: Request) -> None:
    number, windows, uses_cache = request
    reader.read(windows, slots[number % len(slots), : len(windows)].numpy(), uses_cache)


class ClipLoader(BatchLoader):
    """Yields batches that worker processes, which remain from epoch to epoch, write to slots of memory that they share
    with this process. A batch has features, too, while `features` keeps them.

    A DataLoader would share new memory for each batch, of which most containers have too little in /dev/shm; through a
    pipe, cached frames would take as long as decoding them.
    """

    def __init__(
        self, reader: ClipReader, sampler: EpochSampler, num_workers: int, features: FeatureCache | None = None
    ):
        super().__init__(reader.batch, sampler)
        self.reader, self.num_workers, self.features = reader, num_workers, features
        num_slots = PREFETCH * num_workers + 1  # batches that are read ahead, and the one that is copied
        # The last batch of an epoch may have one clip more.
        size = reader.num_windows * (sampler.batch_size + 1), reader.num_steps, *reader.frame_shape
        self.slots = shared_memory(num_slots, *size)
        self.requests: list[Request] = []  # of an epoch
        self.encoded = False  # whether the short clips are
        read = partial(read_into, self.slots, reader)
        options = {"prefetch_factor": PREFETCH if num_workers else None, "persistent_workers": num_workers > 0}
        self.answers = WorkerLoader(read, self.requests, num_workers, **options)

    def encode_short_clips(self, features: FeatureCache) -> None:
        """Encodes all frames of short clips, of which each epoch reads others. Other processes encode other clips."""
        reader, sampler = self.reader, self.sampler
        numbers = sampler.indices[sampler.rank :: sampler.num_ranks].tolist()
        whole = [(number, np.arange(len(reader.numbers[number]))) for number in numbers]
        short = [window for window in whole if len(window[1]) <= SHORT * reader.num_steps]
        missing = [window for window in short if features.read(reader.parts([window]))[1].any()]
        if missing:
            log.info(f"encoding {counted(len(missing), 'clip')} once; later epochs read {features.folder}")
        for window, frames in zip(missing, WorkerLoader(reader.read_alone, missing, self.num_workers), strict=True):
            if isinstance(frames, UserError):
                raise frames
            self.encode(features, frames, [window], [window])

    def __iter__(self) -> Iterator[Batch]:
        reader, epoch = self.reader, self.sampler.drawn_epoch
        features = self.features if self.features and self.features.is_constant else None
        if features:
            features.prepare()
        if features and epoch is not None and not self.encoded:
            self.encode_short_clips(features)
            self.encoded = True
        self.requests.clear()
        batches = []
        for number, clips in enumerate(self.sampler):
            windows = reader.windows(clips.tolist(), epoch)
            missing: list[Window | None] = [*windows]
            if features:
                is_missing: Any = features.read(reader.parts(windows))[1].any(1)
                missing = [window if wanted else None for window, wanted in zip(windows, is_missing, strict=True)]
            batches.append((clips, windows))
            self.requests.append((number, missing, features is None))
        for (clips, windows), (number, decoded, _), answer in zip(batches, self.requests, self.answers, strict=True):
            if isinstance(answer, UserError):
                raise answer
            # torch's copy would take the threads of the processes that read
            frames = self.slots[number % len(self.slots), : len(windows)].numpy().copy()
            batch = reader.batch_of(clips, windows, torch.from_numpy(frames).movedim(4, 2))  # channels last in memory
            yield batch._replace(features=self.encode(features, frames, windows, decoded)) if features else batch

    def encode(
        self, features: FeatureCache, frames: np.ndarray, windows: Sequence[Window], decoded: Sequence[Window | None]
    ) -> Float[Tensor, "windows steps ..."]:
        """Returns the features of the frames. Decodes here what was kept when the epoch began, but is no longer. Raises
        UserError for a clip that has changed, because its features would be kept for good.
        """
        parts = self.reader.parts(windows)
        values, missing = features.read(parts)
        for place in np.flatnonzero(np.any(missing, axis=1)).tolist():
            if decoded[place] is None:
                self.reader.read([windows[place]], frames[place : place + 1], uses_cache=False)
            number, _ = windows[place]
            path = self.reader.samples[number].path
            if clip_frames.state_of(path) != self.reader.notes[number].state:
                raise UserError(f"{path}: has changed since this command started; resume the run.")
        return features.features(torch.from_numpy(frames).movedim(4, 2), parts, values, missing)


# The data of a run


def frame_size(notes: Mapping[Path, Note]) -> tuple[int, int]:
    """Returns the height and width of all frames. Raises UserError for clips of different sizes."""
    sizes = {(note.height, note.width): path for path, note in notes.items()}
    if len(sizes) > 1:
        one, other, *_ = (f"{path} has frames of {height} x {width}" for (height, width), path in sizes.items())
        raise UserError(f"data.size: null, but {one} and {other}; add data.size=[HEIGHT,WIDTH].")
    return next(iter(sizes))


def check_pictures(notes: Mapping[Path, Note]) -> None:
    """Raises UserError for a PNG with a single frame, or if each clip is a file of one: they may be frames of the same
    clips.
    """
    pictures = [path for path in notes if path.suffix.lower() in clip_frames.ANIMATED and not path.is_dir()]
    singles = [path for path in pictures if notes[path].num_frames == 1]
    stills = [path for path in singles if clip_frames.is_still(path, 1)]
    if stills or len(singles) == len(notes):
        remedy = "put the frames of a clip into a folder, CLASS/CLIP/frame1.png, or write data.num_frames=1"
        raise UserError(f"{[*stills, *singles][0]}: is a single picture; {remedy}.")


def warnings_of(
    notes: Mapping[Path, Note], available: Mapping[Path, np.ndarray], frame_step: int, fps: float | None
) -> list[str]:
    """Returns a warning of a rate that repeats frames, or that leaves most clips a single one."""
    total = sum(note.num_frames for note in notes.values())
    if fps and sum(map(len, available.values())) > 2 * total:
        rate = total / sum(note.seconds or 0 for note in notes.values())
        return [f"data.fps: {fps:g}, but the clips have {rate:.3g} frames per second, so frames are repeated; lower it"]
    single = [path for path, frames in available.items() if len(frames) == 1 < notes[path].num_frames]
    if 2 * len(single) > len(notes):
        key = f"data.fps: {fps:g}" if fps else f"data.frame_step: {frame_step}"
        remedy = "raise it" if fps else "lower it"
        return [f"{key} leaves {len(single)} of {counted(len(notes), 'clip')} a single frame; {remedy}"]
    return []


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
        fps: kinds.FrameRate | None,
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
        test_fold: kinds.Natural | None = None,
    ):
        if fps and frame_step > 1:
            raise UserError(f"data.frame_step: {frame_step}, but data.fps={fps} chooses the frames; leave one out.")
        folder, names, samples, origin = splits.find_samples(root, labels, group, clip_frames.is_clip, "clip")
        frame_format = FrameFormat(channels, None if size is None else (size[0], size[1]), layout, fit)
        self.notes, self.skipped = examine_clips(folder, [path for path, *_ in samples], frame_format, num_workers)
        if self.skipped and not skip_broken:
            others = len(self.skipped) - 1
            also = f" ({counted(others, 'other clip')} cannot be read, either)" if others else ""
            raise UserError(f"{self.skipped[0]}{also}; replace or remove it, or add data.skip_broken=true.")
        readable = [clip for clip in samples if clip.path in self.notes]
        drawing = test_share, validation_share, validation_seed, fold, num_folds, test_fold
        division = splits.divide(readable, names, *drawing)
        height, width = frame_size(self.notes)
        untimed = next((path for path, note in self.notes.items() if note.seconds is None), None)
        if fps and untimed:
            raise UserError(f"data.fps: {fps}, but {untimed} has no times; leave it out, and write data.frame_step.")
        available = {path: clip_frames.frames_available(note, frame_step, fps) for path, note in self.notes.items()}
        longest = max(map(len, available.values()))
        if num_frames != 1:
            check_pictures(self.notes)
        spec = SequenceSpec((channels, height, width), num_frames or longest, names)
        files, reading = (self.notes, frame_format), (available, sampling, spec, seed)
        train = ClipReader(*files, round(1e9 * cache_gb), division.train, *reading, 1)
        test = ClipReader(*files, 0, division.test, *reading, test_windows)
        seconds = sum(note.seconds or 0 for note in self.notes.values())
        amount = f"{sum(note.num_frames for note in self.notes.values()):,} frames"
        amount += f", {seconds:,.0f} s" if seconds else ""
        checksums = {path: note.sha256 for path, note in self.notes.items()}
        super().__init__(spec, train, test, division, batch_size, seed, folder, origin, checksums, amount)
        self.num_workers, self.augmentation = num_workers, augmentation
        if num_frames != 1:
            self.warnings += warnings_of(self.notes, available, frame_step, fps)

    def keep_features(self, encoder: nn.Module) -> None:
        if self.augmentation.transforms(*self.spec.frame_shape[1:]):
            return
        self.features = FeatureCache(encoder, self.spec.frame_shape, (EXAMINATION, self.test.frame_format))

    def loader(self, data: ClipReader, indices: Int64[Tensor, " samples"], seed: int | None = None) -> ClipLoader:
        return ClipLoader(data, self.sampler(indices, seed), self.num_workers, self.features)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch._replace(frames=scaled(self.augmentation(batch.frames) if self.is_training else batch.frames))

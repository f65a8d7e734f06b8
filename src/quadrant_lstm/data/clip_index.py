"""Examines all clips once before the training: decodes them, and notes their lengths, sizes and checksums.

The notes are kept in ~/.cache/quadrant_lstm/clips/, so that a clip which has not changed is not decoded again.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from torch.utils.data import Dataset

from quadrant_lstm.data.clip_formats import files_of
from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, decoder_errors_explained, examine_frames
from quadrant_lstm.data.worker_loader import WorkerLoader, killed_workers_explained
from quadrant_lstm.files import read_json, write_json
from quadrant_lstm.text import with_progress

CACHE = Path("~/.cache/quadrant_lstm/clips")
EXAMINATION = 2  # to be raised with each change of what is refused: clips are then examined again


class Note(NamedTuple):
    """What is known of a clip."""

    num_frames: int
    size: tuple[int, int]  # height and width after resizing
    sha256: str  # of its files


def examine_clips(
    root: Path, paths: Sequence[Path], frame_format: FrameFormat, num_workers: int
) -> tuple[dict[Path, Note], list[str]]:
    """Returns notes of the clips that can be read, and the errors of the others.

    Processes that start together wait for the first.
    """
    name = hashlib.sha256(repr((EXAMINATION, str(root.absolute()), frame_format)).encode()).hexdigest()[:16]
    file = CACHE.expanduser() / f"{name}.json"
    with contextlib.ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(file.with_suffix(".lock")))
        except OSError:  # a home that cannot be written
            return update_notes({}, root, paths, frame_format, num_workers)
        stored = read_json(file)
        result = update_notes(stored, root, paths, frame_format, num_workers)
        write_json(file, stored)
        return result


def update_notes(
    stored: dict[str, Any], root: Path, paths: Sequence[Path], frame_format: FrameFormat, num_workers: int
) -> tuple[dict[Path, Note], list[str]]:
    """Adds the notes of new and changed clips to `stored`, which has them by their paths in the root."""
    names = {path: str(path.relative_to(root)) for path in paths}
    states = {path: state_of(path) for path in paths}
    new = [path for path in paths if not states[path] or stored.get(names[path], [None])[0] != states[path]]
    broken: list[str] = []
    for path, found in zip(new, examine_in_workers(new, frame_format, num_workers), strict=True):
        if isinstance(found, Note):
            stored[names[path]] = [states[path], *found]
        else:
            broken.append(found)
            stored.pop(names[path], None)
    entries = {path: stored[names[path]] for path in paths if names[path] in stored}
    notes = {path: Note(count, (height, width), sha) for path, (_, count, (height, width), sha) in entries.items()}
    return notes, broken


def state_of(clip: Path) -> str | None:
    """Returns what changes with the content: the names of the files, their bytes and the times of their last changes,
    hashed; None for a clip whose files cannot be found, such as a link that leads nowhere.
    """
    try:
        files = [(file.name, file.stat()) for file in files_of(clip)]
    except OSError:
        return None
    states = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def examine_in_workers(clips: Sequence[Path], frame_format: FrameFormat, num_workers: int) -> Iterator[Note | str]:
    """Yields a Note or an error for each clip. Shows a progress bar on a terminal."""
    if not clips:
        return
    loader = WorkerLoader(Examinations(clips, frame_format), batch_size=None, num_workers=num_workers)
    reason = "a process that examines clips was killed, perhaps because memory was short"
    with killed_workers_explained(f"data.num_workers: {reason}; write fewer."):
        yield from with_progress(loader, "reading clips", len(clips))


class Examinations(Dataset):
    def __init__(self, clips: Sequence[Path], frame_format: FrameFormat):
        self.clips, self.frame_format = clips, frame_format

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> Note | str:
        try:
            return note_of(self.clips[number], self.frame_format)
        except BrokenClip as error:
            return str(error)


def note_of(clip: Path, frame_format: FrameFormat) -> Note:
    num_frames, size = examine_frames(clip, frame_format)
    digest = hashlib.sha256()
    with decoder_errors_explained(clip):
        for file in files_of(clip):
            digest.update(file.read_bytes())
    return Note(num_frames, size, digest.hexdigest())

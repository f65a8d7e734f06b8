"""Examines all clips once before the training."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from filelock import FileLock

from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, Note, examine, is_clip, state_of
from quadrant_lstm.data.datamodule import WorkerLoader, killed_workers_explained
from quadrant_lstm.data.image_files import find_files
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import WriteError, write_atomically
from quadrant_lstm.text import with_progress

find_clip_files = partial(find_files, kind="clip", is_wanted=is_clip)

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
        raise UserError(
            f"data.fit: {frame_format.fit}, but data.size=null resizes no frame; add data.size=[HEIGHT,WIDTH]."
        )
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

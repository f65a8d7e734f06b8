"""Finds the clips of a folder with their classes, and examines all of them once before the training."""

import contextlib
import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, Note, examine, is_clip, state_of
from quadrant_lstm.data.datamodule import WorkerLoader, killed_workers_explained
from quadrant_lstm.data.image_files import find_files, natural, visible
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import WriteError, expanded, write_atomically
from quadrant_lstm.text import with_progress

# Clips and their classes
#
#     FOLDER/{train,test}/CLASS/CLIP, or FOLDER/CLASS/CLIP: then some clips of each class are drawn for the test
#
# Names that begin with a dot are ignored.


find_clip_files = partial(find_files, kind="clip", is_wanted=is_clip)


class Clip(NamedTuple):
    path: Path
    label: int  # the number of its class


class ClipFolder(NamedTuple):
    root: Path
    class_names: tuple[str, ...]
    train: list[Clip]
    test: list[Clip]


def find_clips(root: str | None, test_share: float, seed: int) -> ClipFolder:
    """Raises UserError for a folder with another structure."""
    if root is None:
        raise UserError("data.root: null, but clips are read from a folder; add data.root=FOLDER.")
    folder = expanded(root)
    if not folder.is_dir():
        raise UserError(f"data.root: {folder} is not a folder; give one with a folder of clips for each class.")
    splits = [folder / name for name in ("train", "test") if (folder / name).is_dir()]
    if len(splits) == 1:
        raise UserError(
            f"data.root: {folder} holds {splits[0].name} without the other of train and test; add it, or rename the "
            "class."
        )
    if splits:
        if others := sorted({path for path in folder.iterdir() if path.is_dir() and visible(path)} - {*splits}):
            raise UserError(f"{others[0]}: is neither train nor test; move its clips, or begin its name with a dot.")
        train, test = map(clips_by_class, splits)
        for name in sorted(train.keys() ^ test.keys()):
            missing, other = sorted((split / name for split in splits), key=Path.is_dir)
            raise UserError(f"{missing.parent}: has no class {name}; add its folder, or remove {other}.")
    else:
        train, test = divided(folder, clips_by_class(folder), test_share, seed)
    train_clips, test_clips = (
        [Clip(path, label) for label, name in enumerate(train) for path in split[name]] for split in (train, test)
    )
    return ClipFolder(folder, tuple(train), train_clips, test_clips)


def clips_by_class(folder: Path) -> dict[str, list[Path]]:
    classes = sorted((path for path in folder.iterdir() if path.is_dir() and visible(path)), key=natural)
    if len(classes) < 2:
        count = "one folder" if classes else "no folder"
        raise UserError(f"{folder}: holds {count}, but each class needs one; add at least two.")
    return {class_folder.name: clips_of(class_folder) for class_folder in classes}


def clips_of(class_folder: Path) -> list[Path]:
    try:
        str(class_folder).encode()
    except UnicodeEncodeError as error:  # text files of a run could not hold the name
        raise UserError(f"data.root: the name of {class_folder} is not UTF-8; rename the folder.") from error
    clips = sorted(filter(visible, class_folder.iterdir()), key=natural)
    if not clips:
        raise UserError(f"{class_folder}: holds no clips; add some, or remove the folder.")
    if other := next((path for path in clips if not is_clip(path)), None):
        what = "a folder without still pictures, or with clips beside them" if other.is_dir() else "no file of a clip"
        raise UserError(f"{other}: is {what}; remove it, or begin its name with a dot.")
    return clips


def divided(
    folder: Path, clips: Mapping[str, Sequence[Path]], test_share: float, seed: int
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Draws the test clips of each class: the share, but at least one clip, and at least one remains for training."""
    train, test = {}, {}
    for name, paths in clips.items():
        if len(paths) < 2:
            raise UserError(f"{folder / name}: holds one clip, but training and test need one each; add another.")
        count = min(len(paths) - 1, max(1, round(test_share * len(paths))))
        drawn = set(random.Random(f"{seed} {name}").sample(range(len(paths)), count))
        test[name] = [path for number, path in enumerate(paths) if number in drawn]
        train[name] = [path for number, path in enumerate(paths) if number not in drawn]
    return train, test


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
    names = {path: str(path.relative_to(root)) for path in paths}
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
                    opened.write(line_of(names[path], result))
    notes = {path: note for path in paths if isinstance(note := found[path], Note)}
    return notes, [error for path in paths if isinstance(error := found[path], str)]


def line_of(name: str, note: Note) -> bytes:
    return json.dumps([name, *note]).encode() + b"\n"


def stored_notes(file: Path) -> dict[str, Note]:
    """Reads the notes, and rewrites the file if it has lines that are outdated, damaged or, after a kill, cut off."""
    content = file.read_bytes() if file.exists() else b""
    notes = {}
    for line in content.splitlines():
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            name, *values = json.loads(line)
            notes[name] = Note(*values)
    if content != (rewritten := b"".join(line_of(name, note) for name, note in notes.items())):
        write_atomically(file, rewritten)
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

"""Finds the clips of a folder with their classes, and examines all of them once before the training."""

import contextlib
import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from torch.utils.data import Dataset

from quadrant_lstm.data.clip_frames import (
    ARRAYS,
    BrokenClip,
    FrameFormat,
    decoder_errors_explained,
    examine_frames,
    files_of,
    is_clip,
)
from quadrant_lstm.data.datamodule import WorkerLoader, killed_workers_explained
from quadrant_lstm.data.image_files import FoundAndLeftOut, find_files, natural, visible, walk_visible
from quadrant_lstm.data.videos import is_video
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.files import expanded, read_json, write_json
from quadrant_lstm.text import with_progress

# Clips and their classes
#
#     FOLDER/{train,test}/CLASS/CLIP, or FOLDER/CLASS/CLIP: then some clips of each class are drawn for the test
#
# Names that begin with a dot are ignored.


ClipsByClass = Mapping[str, Sequence[Path]]  # the clips of each


class Clip(NamedTuple):
    path: Path
    label: int  # the number of its class


class ClipFolder(NamedTuple):
    root: Path
    class_names: tuple[str, ...]
    train: list[Clip]
    test: list[Clip]


def find_clips(root: str | None, test_share: float, seed: int, layout: str | None) -> ClipFolder:
    """Raises UserError for a folder with another structure, arrays without a layout, and videos without PyAV."""
    if root is None:
        raise UserError("data.root: null, but clips are read from a folder; add data.root=FOLDER.")
    folder = expanded(root)
    if not folder.is_dir():
        raise UserError(f"data.root: {folder} is not a folder; give one with a folder of clips for each class.")
    check_utf8(folder)
    splits = [folder / name for name in ("train", "test") if (folder / name).is_dir()]
    if len(splits) == 1:
        raise UserError(
            f"data.root: {folder} holds {splits[0].name} without the other of train and test; add it, or rename the "
            "class."
        )
    if splits:
        train, test = map(clips_by_class, splits)
        check_same_classes(splits[0], train, splits[1], test)
    else:
        train, test = divided(folder, clips_by_class(folder), test_share, seed)
    names = tuple(train)
    clips = ClipFolder(folder, names, numbered_clips(train, names), numbered_clips(test, names))
    paths = [clip.path for clip in (*clips.train, *clips.test)]
    array = next((path for path in paths if path.suffix.lower() in ARRAYS), None)
    if array and layout is None:
        raise UserError(f"data.layout: null, but {array} is an array; write e.g. data.layout=THWC.")
    if video := next(filter(is_video, paths), None):
        with needs_extra(str(video), "video"):
            import av  # noqa: F401
    return clips


def find_clip_files(images: str) -> Iterable[Path]:
    return find_files(images, "clip", clips_below)


def clips_below(folder: Path) -> FoundAndLeftOut:
    """Returns the folder if it is a clip, or the clips in it and in the folders in it, and the other files."""
    if is_clip(folder):
        return [folder], []
    clips: list[Path] = []
    others: list[Path] = []
    for path, folders, names in walk_visible(folder):
        clips += (picture_folders := [Path(path, name) for name in folders if is_clip(Path(path, name))])
        folders[:] = [name for name in folders if Path(path, name) not in picture_folders]
        for file in (Path(path, name) for name in names):
            (clips if is_clip(file) else others).append(file)
    return clips, others


def clips_by_class(folder: Path) -> dict[str, list[Path]]:
    classes = sorted(
        (path for path in folder.iterdir() if path.is_dir() and visible(path)), key=lambda path: natural(path.name)
    )
    if len(classes) < 2:
        count = "one folder" if classes else "no folder"
        raise UserError(f"{folder}: holds {count}, but each class needs one; add at least two.")
    for class_folder in classes:
        check_utf8(class_folder)
    return {class_folder.name: clips_of(class_folder) for class_folder in classes}


def check_utf8(folder: Path) -> None:
    """Raises UserError for a name that the text files of a run cannot hold."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"data.root: the name of {folder} is not UTF-8; rename the folder.") from error


def clips_of(class_folder: Path) -> list[Path]:
    clips = sorted(filter(visible, class_folder.iterdir()), key=lambda path: natural(path.name))
    if not clips:
        raise UserError(f"{class_folder}: holds no clips; add some, or remove the folder.")
    for clip in clips:
        if not is_clip(clip):
            what = (
                "a folder without still pictures, or with clips beside them"
                if clip.is_dir()
                else "neither a folder nor a file of clips"
            )
            raise UserError(f"{clip}: is {what}; remove it, or begin its name with a dot.")
    return clips


def check_same_classes(train: Path, train_classes: ClipsByClass, test: Path, test_classes: ClipsByClass) -> None:
    both = ((test, test_classes, train, train_classes), (train, train_classes, test, test_classes))
    for folder, classes, other, others in both:
        if missing := [name for name in others if name not in classes]:
            raise UserError(f"{folder}: has no class {missing[0]}; add its folder, or remove {other / missing[0]}.")


def divided(
    folder: Path, clips: ClipsByClass, test_share: float, seed: int
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


def numbered_clips(clips: ClipsByClass, names: Sequence[str]) -> list[Clip]:
    return [Clip(path, label) for label, name in enumerate(names) for path in clips[name]]


# Lengths, sizes and checksums
#
# The notes are kept in ~/.cache/quadrant_lstm/clips/, so that a clip which has not changed is not decoded again.


CACHE = Path("~/.cache/quadrant_lstm/clips")
EXAMINATION = 3


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
    for path, note in zip(new, examine_in_workers(new, frame_format, num_workers), strict=True):
        if isinstance(note, Note):
            stored[names[path]] = [states[path], *note]
        else:
            broken.append(note)
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

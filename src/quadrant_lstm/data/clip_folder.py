"""Finds the clips of a folder, with their classes. Imports no torch.

    FOLDER/{train,test}/CLASS/CLIP, or FOLDER/CLASS/CLIP: then some clips of each class are drawn for the test

Names that begin with a dot are ignored.
"""

import glob
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from quadrant_lstm.data.clip_formats import ARRAYS, is_clip
from quadrant_lstm.data.image_files import files_of_stdin, natural, sorted_or_refused, visible, walk_visible
from quadrant_lstm.data.videos import is_video
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.files import expanded

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
    found = ClipFolder(folder, names, numbered_clips(train, names), numbered_clips(test, names))
    paths = [clip.path for clip in (*found.train, *found.test)]
    array = next((path for path in paths if path.suffix.lower() in ARRAYS), None)
    if array and layout is None:
        raise UserError(f"data.layout: null, but {array} is an array; write e.g. data.layout=THWC.")
    if video := next(filter(is_video, paths), None):
        with needs_extra(str(video), "video"):
            import av  # noqa: F401
    return found


def find_clip_files(images: str) -> Iterable[Path]:
    """Returns the clips of `images`: a clip, a folder with those in it, a glob, or `-` for the lines of standard input.

    Names the kinds of the files of a folder that are left out on stderr.
    """
    if images == "-":
        return files_of_stdin()
    path = expanded(images)
    if path.is_file() or (path.is_dir() and is_clip(path)):
        return [path]
    if path.is_dir():
        return sorted_or_refused(images, "clip", *clips_below(path))
    return sorted_or_refused(images, "clip", [Path(name) for name in glob.glob(str(path), recursive=True)], [])


def clips_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns the clips in a folder and in the folders in it, and the other files."""
    clips: list[Path] = []
    others: list[Path] = []
    for path, folders, names in walk_visible(folder):
        clips += (picture_folders := [each for name in folders if is_clip(each := Path(path, name))])
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
    for each in classes:
        check_utf8(each)
    return {each.name: clips_of(each) for each in classes}


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

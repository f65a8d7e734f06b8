"""Finds the sequences of a folder, with their classes and groups, and divides them into training, validation and test.

    FOLDER/{train,val,test}/CLASS/SEQUENCE    val may be missing
    FOLDER/CLASS/SEQUENCE                     divided by hashes
    labels=FILE.csv                           columns path, label, and perhaps split and group

A hash of the name, or of the group that a sequence belongs to, decides where it goes. So sequences of a group stay
together, and a new sequence moves no other from the training to the test. Names that begin with a dot are ignored.
"""

import collections
import csv
import difflib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from quadrant_lstm.data.datamodule import check_fold
from quadrant_lstm.data.image_files import is_image_name, is_visible, natural
from quadrant_lstm.errors import UserError, as_text
from quadrant_lstm.files import expanded
from quadrant_lstm.text import plural

FEW = 5  # fewer samples of a class than this say little about its accuracy
SPLITS = ("train", "val", "test")
LIKE_SPLITS = {*SPLITS, "training", "valid", "validation", "testing"}

# What a folder or a file of labels says


class Sample(NamedTuple):
    path: Path
    label: str  # the name of its class
    group: str  # by default the path from the root; empty until this is known
    split: str | None  # one of SPLITS; None if it is to be drawn


def find_samples(
    root: str | None, labels: str | None, group: str | None, is_sample: Callable[[Path], bool], kind: str
) -> tuple[Path, tuple[str, ...], list[Sample], str]:
    """Returns the root, the names of the classes, the samples, and in words where the classes and splits come from.
    `group` is a regular expression: what it finds in the path of a sample, or what its first parentheses find, is the
    group of the sample. `kind` is the word for a sample in messages. Raises UserError for a folder of another
    structure, a wrong row of the file, classes that are not in training and test where these are given, and a group in
    two given splits.
    """
    if root is None and labels is None:
        raise UserError(f"data.root: null, but {plural(kind)} are read from a folder; add data.root=FOLDER.")
    folder = expanded(root) if root else expanded(str(labels)).parent
    if not folder.is_dir():
        raise UserError(f"data.root: {folder} is not a folder; give one with a folder for each class.")
    samples = read_labels(expanded(labels), folder) if labels else list_folder(folder, is_sample, kind)
    if group and any(sample.group for sample in samples):
        raise UserError(f"data.group: {group}, but {labels} has a column group; leave one of them out.")
    samples = [sample._replace(group=sample.group or group_of(sample.path, folder, group)) for sample in samples]
    names = class_names(samples)
    place = f"data.labels: {labels}" if labels else f"data.root: {folder}"
    if len(names) < 2:
        remedy = f"add {plural(kind)} of another one"
        if not labels and all(sample.path.is_dir() for sample in samples):
            remedy += f", or write data.root={samples[0].path.parent} if its folders are the classes"
        raise UserError(f"{place} has fewer than two classes; {remedy}.")
    splits = {split: {sample.label for sample in samples if sample.split == split} for split in SPLITS}
    for split in ("train", "test") if samples[0].split else ():
        if missing := {*names} - splits[split]:
            raise UserError(f"{place} has no {kind} of class {min(missing)} in {split}; add some, or remove the class.")
    check_samples(samples, is_sample, kind)
    folders = ", ".join(split for split in SPLITS if splits[split]) or "of the classes"
    return folder, names, samples, as_text(labels) if labels else f"the folders {folders}"


def class_names(samples: Iterable[Sample]) -> tuple[str, ...]:
    return tuple(sorted({sample.label for sample in samples}, key=natural))


def list_folder(folder: Path, is_sample: Callable[[Path], bool], kind: str) -> list[Sample]:
    splits: list[str | None] = [split for split in SPLITS if (folder / split).is_dir()]
    others = [path for path in visible_in(folder) if path.is_dir() and path.name not in splits]
    if others and splits:
        rule = "is not train, val or test"
        raise UserError(f"{others[0]}: {rule}; move its {plural(kind)} or begin its name with a dot.")
    if others and {path.name.lower() for path in others} <= LIKE_SPLITS:
        names = ", ".join(path.name for path in others)
        raise UserError(f"data.root: {folder} has the folders {names}; name them train, val and test.")
    samples: list[Sample] = []
    for split in splits or [None]:
        entries = visible_in(folder / (split or ""))
        if stray := [path for path in entries if not path.is_dir() and is_sample(path)]:
            raise UserError(f"{stray[0]}: is in no folder of a class; move it, or begin its name with a dot.")
        for class_folder in filter(Path.is_dir, entries):
            if as_text(class_folder) != str(class_folder):  # text files of a run could not hold the name
                raise UserError(f"data.root: the name of {class_folder} is not UTF-8; rename the folder.")
            if not (paths := visible_in(class_folder)):
                raise UserError(f"{class_folder}: holds no {plural(kind)}; add some, or remove the folder.")
            samples += [Sample(path, class_folder.name, "", split) for path in paths]
        if not samples or samples[-1].split != split:
            place, remedy = f"data.root: {folder}", f"give one with a folder of {plural(kind)} for each class"
            if split:
                place, remedy = f"{folder / split}:", "add some, or remove it"
            raise UserError(f"{place} holds no folder of a class; {remedy}.")
    return samples


def visible_in(folder: Path) -> list[Path]:
    paths = (path for path in folder.iterdir() if is_visible(path.name))
    return sorted(paths, key=lambda path: natural(path.name))


def read_labels(file: Path, root: Path) -> list[Sample]:
    """Reads a table with the columns path (from `root`) and label, and perhaps split and group."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened, strict=True)
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"data.labels: {file} cannot be read ({error}); give a CSV file in UTF-8.") from error
    header, known = list(reader.fieldnames or ()), ("path", "label", "split", "group")
    columns = [column for column in known if column in header]
    for name in header:
        plain = name.strip().lower()
        for similar in difflib.get_close_matches(plain, known, n=1, cutoff=0.8):
            if similar != name and (similar not in header or similar == plain):
                raise UserError(f"data.labels: {file} has a column {name!r}; rename it to {similar}, or otherwise.")
            if header.count(name) > 1:
                raise UserError(f"data.labels: {file} has two columns {name!r}; remove one.")
    if missing := {"path", "label"} - {*columns}:
        raise UserError(f"data.labels: {file} has no column {min(missing)}; add it, separated by commas.")
    samples: dict[Path, Sample] = {}
    for number, line in lines:
        values = {column: (line[column] or "").strip() for column in columns}
        path, split = root / values["path"], values.get("split")
        if None in line:
            problem = "has more cells than the first row; put values with commas into quotes"
        elif empty := [column for column, value in values.items() if not value]:
            problem = f"has no {empty[0]}; add it, or remove the row"
        elif not path.exists():
            problem = f"{path} does not exist; correct the path, or set data.root to the folder that it starts from"
        elif path.resolve() in samples:
            problem = f"{path} stands in an earlier row, too; remove one of them"
        elif split not in (None, *SPLITS):
            problem = f"{split} is not a split; write train, val or test"
        else:
            samples[path.resolve()] = Sample(path, values["label"], values.get("group", ""), split)
            continue
        raise UserError(f"data.labels: {file}, row {number}: {problem}.")
    return list(samples.values())


def group_of(path: Path, root: Path, pattern: str | None) -> str:
    name = Path(os.path.relpath(path, root)).as_posix()  # however a table writes the path
    if pattern is None:
        return name
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise UserError(f"data.group: {pattern} is not a regular expression ({error}); correct it.") from error
    if found is None or not (group := found[min(1, found.re.groups)]):
        raise UserError(f"data.group: {pattern} finds nothing in {name}; write an expression that fits every path.")
    return group


FORMATS = {"clip": "such as .mp4, .avi, .mov or .gif", "series": ".csv, .npy or .npz"}


def check_samples(samples: Iterable[Sample], is_sample: Callable[[Path], bool], kind: str) -> None:
    """Raises UserError for a path that is no sample, and for a group in two of the given splits."""
    first: dict[str, Sample] = {}
    for sample in samples:
        if not is_sample(path := sample.path):
            what = f"no file of a {kind} ({FORMATS[kind]})"
            remedy = "convert or remove it, or begin its name with a dot"
            if path.is_dir() and not visible_in(path):
                what, remedy = "an empty folder", "remove it, or begin its name with a dot"
            elif path.is_dir():
                holds = "but not of still pictures alone" if kind == "clip" else f"no file of a {kind}"
                what = f"a folder, {holds} (those of splits are named train, val and test)"
                remedy = "move its files up, list them in data.labels, or begin its name with a dot"
            elif kind == "clip" and is_image_name(path.name):
                remedy = "put the frames of a clip into a folder, CLASS/CLIP/frame1.jpg"
            raise UserError(f"{path}: is {what}; {remedy}.")
        if (other := first.setdefault(sample.group, sample)).split != sample.split:
            places = f"in {other.split} ({other.path}) and in {sample.split} ({sample.path})"
            raise UserError(f"data.group: {sample.group} is {places}; move one of them, or write another data.group.")


# What is drawn


class Division(NamedTuple):
    """`held_out` are the places of those training samples that are for validation, and `how` says what was drawn."""

    train: list[Sample]
    held_out: list[int]
    test: list[Sample]
    how: str
    warnings: list[str]


def divide(
    samples: Sequence[Sample],
    class_names: Sequence[str],
    test_share: float,
    validation_share: float,
    seed: int,
    fold: int | None,
    num_folds: int,
    test_fold: int | None = None,
) -> Division:
    """Warns if hashes of groups draw more than twice the share that was asked for, or less than half of it. Raises
    UserError for a class without a sample to train on or to test, and for a fold that is not there.
    """
    drawn, by_share = [], []
    if any(sample.split for sample in samples):
        if test_fold is not None:
            raise UserError(f"data.test_fold: {test_fold}, but the samples in test are for the test; leave it out.")
        chosen = {sample.group for sample in samples if sample.split == "test"}
    elif test_fold is None:
        chosen = draw(samples, test_share, "test", seed)
        drawn.append("test")
        by_share.append(("test_share", test_share, chosen, samples))
    else:
        chosen = draw_fold("test_fold", samples, test_fold, num_folds, seed)
        drawn.append(f"test fold {test_fold} of {num_folds}")
    test = [sample for sample in samples if sample.group in chosen]
    check_classes("test", test, class_names, samples)
    train = [sample for sample in samples if sample.group not in chosen]
    validation = {sample.group for sample in train if sample.split == "val"}
    if validation and fold is not None:
        raise UserError(f"data.fold: {fold}, but the samples in val are for validation; leave data.fold out.")
    if fold is not None:
        validation = draw_fold("fold", train, fold, num_folds, seed)
        drawn.append(f"fold {fold} of {num_folds}")
    elif not validation and validation_share:
        validation = draw(train, validation_share, "validation", seed)
        drawn.append("validation")
        by_share.append(("validation_share", validation_share, validation, train))
        if not validation:
            rule = "beside the test, every class has one name or group"
            remedy = "add some, write another data.validation_seed, or 0"
            raise UserError(f"data.validation_share: {validation_share}, but {rule}; {remedy}.")
    places = [place for place, sample in enumerate(train) if sample.group in validation]
    check_classes("training", [sample for sample in train if sample.group not in validation], class_names, samples)
    num_groups = len({sample.group for sample in samples})
    hashed = f"{num_groups:,} groups" if num_groups < len(samples) else "names"
    how = f"{' and '.join(drawn)} drawn by hashes of the {hashed} (data.validation_seed={seed})" if drawn else ""
    warnings = []
    for key, share, groups, among in by_share if num_groups < len(samples) else ():
        count = sum(sample.group in groups for sample in among)
        if not share / 2 <= count / len(among) <= 2 * share:
            rule = f"hashes of the groups drew {count:,} of {len(among):,} samples"
            warnings.append(f"data.{key}: {share}, but {rule}; perhaps write another data.validation_seed")
    return Division(train, places, test, how, warnings)


def check_classes(split: str, samples: Iterable[Sample], class_names: Sequence[str], every: Iterable[Sample]) -> None:
    """`every` are all samples, also of other splits."""
    if missing := {*class_names} - {sample.label for sample in samples}:
        of_class = [sample.group for sample in every if sample.label == min(missing)]
        if len({*of_class}) == 1 < len(of_class):
            rule = f"all {len(of_class)} samples of class {min(missing)} are in the group {of_class[0]}"
            raise UserError(f"data.group: {rule}; write an expression that finds more groups.")
        remedy = "add some, remove the class, or write another data.validation_seed"
        raise UserError(f"data.root: no {split} sample of class {min(missing)} is left; {remedy}.")


def position(kind: str, seed: int, group: str) -> float:
    """Returns a number in [0, 1) that depends on nothing else."""
    digest = hashlib.sha256(f"{kind} {seed} {group}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48


def draw(samples: Iterable[Sample], share: float, kind: str, seed: int) -> set[str]:
    """Returns the groups whose position is below the share; and of a class without such a group the one with the lowest
    position, unless it is the only one. At least one group of each class is left.
    """
    positions = {sample.group: position(kind, seed, sample.group) for sample in samples}
    groups: dict[str, set[str]] = collections.defaultdict(set)
    for sample in samples:
        groups[sample.label].add(sample.group)
    drawn = {group for group, place in positions.items() if place < share}
    for of_class in groups.values():
        if not of_class & drawn and len(of_class) > 1:
            drawn.add(min(of_class, key=positions.__getitem__))
    for of_class in groups.values():
        if of_class <= drawn:
            drawn.discard(max(of_class, key=positions.__getitem__))
    return drawn


def draw_fold(key: str, samples: Sequence[Sample], fold: int, num_folds: int, seed: int) -> set[str]:
    """Deals the groups out to folds, which get about as many samples of each class, and returns those of one."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for sample in samples:
        counts[sample.group][sample.label] += 1
    check_fold(key, fold, num_folds, len(counts), "names or groups")
    sizes: list[collections.Counter[str]] = [collections.Counter() for _ in range(num_folds)]
    chosen = set()
    for group in sorted(counts, key=lambda group: position("fold", seed, group)):
        ((label, _),) = counts[group].most_common(1)
        smallest = min(range(num_folds), key=lambda number: (sizes[number][label], sizes[number].total(), number))
        sizes[smallest] += counts[group]
        chosen |= {group} if smallest == fold else set()
    return chosen


# What is worth knowing before a training


def counts_in_words(halves: Mapping[str, Iterable[Sample]], class_names: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the number of samples of each half, and of each class if they differ; and a warning for each half but the
    training that has fewer than FEW samples of a class.
    """
    texts, warnings = [], []
    for half, samples in halves.items():
        if not (counts := collections.Counter(sample.label for sample in samples)):
            continue
        each = [(counts[name], name) for name in class_names]
        if half != "training" and (few := [f"{name} {count}" for count, name in each if count < FEW]):
            listed = ", ".join(few[:3]) + (f" and {len(few) - 3} more" if len(few) > 3 else "")
            split, key = {"validation": ("val", "data.fold"), "test": ("test", "data.test_fold")}[half]
            is_given = split in {sample.split for sample in samples}
            rule = f"fewer than {FEW} samples of a class ({listed}), which say little about its accuracy"
            folds = "" if is_given else f", or cross-validate with -m {key}=0,1,2,3,4"
            warnings.append(f"data: {half} has {rule}; add samples{folds}")
        words = [f"{name} {count:,}" for count, name in each]
        if len(each) > 8:
            words = ["from {1} {0:,} to {3} {2:,}".format(*min(each), *max(each))]
        listed = f" ({', '.join(words)})" if len({count for count, _ in each}) > 1 else ""
        texts.append(f"{counts.total():,} for {half}{listed}")
    return ", ".join(texts), warnings

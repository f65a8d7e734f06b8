"""Checks how samples are found, grouped and divided."""

import collections
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from quadrant_lstm.data.image_files import natural
from quadrant_lstm.data.splits import Sample, counts_in_words, divide, draw, find_samples
from quadrant_lstm.errors import UserError

NAMES = ("jump", "wave")


def write(root: Path, *names: str) -> Path:
    """Makes files, and folders of names that end with a slash."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).mkdir() if name.endswith("/") else (root / name).touch()
    return root


def find(root: Path | None, labels: str | None = None, group: str | None = None):
    is_sample = lambda path: path.suffix == ".mp4"  # noqa: E731
    found = find_samples(None if root is None else str(root), labels, group, is_sample, "clip")
    return SimpleNamespace(**dict(zip(("root", "class_names", "samples", "origin"), found, strict=True)))


def samples_of(count: int, people: int | None = None) -> list[Sample]:
    """Returns clips of two classes, each of its own group, or of so many people."""
    return [
        Sample(Path(name), NAMES[number % 2], f"p{number // 2 % people}" if people else name, None)
        for number, name in enumerate(f"{number}.mp4" for number in range(count))
    ]


def divided(samples, test_share=0.2, validation_share=0.2, seed=0, fold=None, test_fold=None):
    division = divide(samples, NAMES, test_share, validation_share, seed, fold, 4, test_fold)
    held_out = [division.train[place] for place in division.held_out]
    train = [sample for sample in division.train if sample not in held_out]
    return division._replace(train=train, held_out=held_out)  # the samples instead of their places


def test_folders_train_val_and_test_are_used_as_they_are(tmp_path):
    parts = itertools.product(("train", "val", "test"), NAMES, (1, 2))
    found = find(write(tmp_path, *(f"{split}/{name}/{split}{number}.mp4" for split, name, number in parts)))
    assert (found.class_names, found.origin) == (NAMES, "the folders train, val, test")
    for samples, split in zip(divided(found.samples), ("train", "val", "test"), strict=False):
        assert sorted(sample.path.name for sample in samples) == [f"{split}{number}.mp4" for number in (1, 1, 2, 2)]
    with pytest.raises(UserError, match="data.fold: 0, but the samples in val are for validation; leave data.fold out"):
        divided(found.samples, fold=0)


def test_names_that_differ_in_zeros_only_have_one_order(tmp_path):
    names = ("v1", "v01", "v001", "v2", "v10")
    assert sorted(names, key=natural) == ["v001", "v01", "v1", "v2", "v10"]
    assert find(write(tmp_path, *(f"{name}/1.mp4" for name in names))).class_names == ("v001", "v01", "v1", "v2", "v10")


DIVIDED = [f"{split}/{name}/1.mp4" for split in ("train", "test") for name in NAMES]


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ([], "data.root: .* holds no folder of a class; give one with a folder of clips for each class."),
        (["jump/1.mp4", "jump/2.mp4"], "data.root: .* has fewer than two classes; add clips of another one"),
        (["digits/jump/1.mp4", "digits/wave/1.mp4"], "another one, or write data.root=.*/digits if its folders"),
        (["jump/1.mp4", "wave/anna/1.mp4"], "wave/anna: is a folder, .*; move its files up, list them in data.labels"),
        ([*DIVIDED[:3], "test/wave/.2.mp4"], "test/wave: holds no clips; add some, or remove the folder"),
        (DIVIDED[:3], "data.root: .* has no clip of class wave in test; add some, or remove the class"),
        (DIVIDED[:1] + DIVIDED[2:], "has no clip of class wave in train; add some"),
        (
            [path.title() for path in DIVIDED],
            "data.root: .* has the folders Test, Train; name them train, val and test",
        ),
        ([*DIVIDED, "dev/"], "dev: is not train, val or test; move its clips or begin its name with a dot"),
        ([*DIVIDED, "\udce9/"], r"\\xe9: is not train, val or test; move its clips"),
        ([*DIVIDED, "val/"], "val: holds no folder of a class; add some, or remove it"),
        ([*DIVIDED, "test/\udce9/1.mp4"], r"the name of .*test/\\xe9 is not UTF-8; rename the folder"),
        ([*DIVIDED, "test/wave/x.txt"], "x.txt: is no file of a clip .such as .mp4, .avi, .mov or .gif.; convert or"),
        (
            [*DIVIDED, "test/wave/x.jpg"],
            "x.jpg: is no file of a clip .such as .*; put the frames of a clip into a folder, CLASS/",
        ),
        ([*DIVIDED, "train/stray.mp4"], "train/stray.mp4: is in no folder of a class; move it, or begin its name"),
    ],
)
def test_a_folder_with_another_structure_is_refused(files, line, tmp_path):
    with pytest.raises(UserError, match=line):
        find(write(tmp_path, *files))
    with pytest.raises(UserError, match="data.root: .*no is not a folder; give one with a folder for each class"):
        find(tmp_path / "no")


def test_one_more_sample_moves_no_other():
    before, after = divided(samples_of(60)), divided(samples_of(80))
    for few, many in zip(before[:3], after[:3], strict=True):
        assert set(few) <= set(many)
    assert [len(samples) for samples in after[:3]] == [56, 11, 13]
    assert divided(samples_of(80), seed=1)[2] != after[2]
    assert after[3] == "test and validation drawn by hashes of the names (data.validation_seed=0)"
    drawn = draw(samples_of(2000), 0.2, "test", 0)
    assert 350 < len(drawn) < 450
    assert abs(collections.Counter(int(name[:-4]) % 2 for name in drawn)[0] - len(drawn) / 2) < 30


def test_every_class_has_samples_to_train_on_and_to_test():
    for seed in range(50):
        train, _, test, *_ = divided(samples_of(4), test_share=0.1 + 0.8 * (seed % 2), validation_share=0.0, seed=seed)
        assert {sample.label for sample in train} == {sample.label for sample in test} == {*NAMES}
    with pytest.raises(UserError, match="no test sample of class wave is left; add some, remove the class, or write"):
        divided([*samples_of(9)[::2], samples_of(2)[1]])
    with pytest.raises(UserError, match="no test sample of class jump is left; add some, remove the class, or write"):
        divided(samples_of(2))
    of_classes = [sample._replace(group=sample.label) for sample in samples_of(60)]
    with pytest.raises(UserError, match="data.group: all 30 samples of class jump are in the group jump; write an exp"):
        divided(of_classes)


@pytest.mark.parametrize("fold", [None, 0, 3])
def test_no_group_is_on_both_sides(fold):
    train, validation, test, how, _ = divided(samples_of(200, people=20), fold=fold)
    sides = [{sample.group for sample in samples} for samples in (train, validation, test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 20
    assert all(sides)
    assert "hashes of the 20 groups" in how


def test_groups_that_give_another_share_than_asked_for_are_warned_of():
    for seed, line in {
        18: "data.test_share: 0.2, but hashes of the groups drew 50 of 100 samples; perhaps write another data.validat",
        25: "data.validation_share: 0.2, but hashes of the groups drew 40 of 70 samples; perhaps write another data.va",
    }.items():
        (warning,) = divided(samples_of(100, people=10), seed=seed).warnings
        assert warning.startswith(line)


def test_folds_share_all_samples_and_have_the_classes_in_equal_parts():
    samples = [sample for sample in samples_of(120) if sample.label == "jump" or int(sample.path.stem) < 40]
    folds = [divided(samples, fold=fold)[1] for fold in range(4)]
    train = divided(samples, validation_share=0.0)[0]
    assert sorted(sample.path for fold in folds for sample in fold) == sorted(sample.path for sample in train)
    for label in NAMES:
        counts = [sum(sample.label == label for sample in fold) for fold in folds]
        assert max(counts) - min(counts) <= 1
    with pytest.raises(UserError, match="data.fold: 4, but data.num_folds=4 makes folds 0 to 3; write one"):
        divided(samples, fold=4)
    with pytest.raises(UserError, match="data.num_folds: 4, but there are 3 names or groups; write fewer"):
        divided(samples_of(40, people=4), fold=0)


def test_test_folds_test_each_group_once_and_leave_none_of_it_for_the_training():
    samples = samples_of(40, people=4)
    tested = []
    for fold in range(4):
        train, validation, test, how, _ = divided(samples, test_fold=fold)
        assert {sample.group for sample in test}.isdisjoint(sample.group for sample in (*train, *validation))
        assert len({sample.group for sample in test}) == 1
        tested += test
        assert how.startswith(f"test fold {fold} of 4 and validation drawn by hashes of the 4 groups")
    assert sorted(tested) == sorted(samples)
    given = [sample._replace(split="test" if sample.group == "p0" else "train") for sample in samples]
    with pytest.raises(UserError, match="data.test_fold: 1, but the samples in test are for the test; leave it out"):
        divided(given, test_fold=1)
    with pytest.raises(UserError, match="data.test_fold: 4, but data.num_folds=4 makes folds 0 to 3; write one"):
        divided(samples, test_fold=4)


def test_a_group_is_what_an_expression_finds_in_the_path(tmp_path):
    write(tmp_path, "jump/v_jump_g01_c01.mp4", "jump/v_jump_g02_c01.mp4", "wave/v_wave_g01_c01.mp4")
    for pattern in ("_g..", r"_(g\d+)_"):
        groups = [sample.group.strip("_") for sample in find(tmp_path, group=pattern).samples]
        assert groups == ["g01", "g02", "g01"]
    with pytest.raises(UserError, match=r"data.group: _h\.\. finds nothing in jump/v_jump_g01_c01.mp4; write an exp"):
        find(tmp_path, group="_h..")
    with pytest.raises(UserError, match=r"data.group: \( is not a regular expression \(.*\); correct it"):
        find(tmp_path, group="(")


def test_labels_stand_in_a_table(tmp_path):
    write(tmp_path / "clips", *(f"{number}.mp4" for number in range(6)))
    table, header = tmp_path / "labels.csv", "\ufeffpath,label,split,other,group\r\n"
    rows = enumerate(("train", "train", "val", "train", "test", "test"))
    lines = [f'"clips/{number}.mp4",{NAMES[number % 2]},{split},x,{number // 2}\r\n' for number, split in rows]
    table.write_text("".join([header, *lines]), newline="")
    with pytest.raises(UserError, match="data.group: 1 is in val .*clips/2.mp4.* and in train .*clips/3.mp4"):
        find(None, str(table))
    table.write_text("".join([header, *lines[:3], *lines[4:]]), newline="")
    found = find(None, str(table))
    assert found.class_names == NAMES
    halves = [[sample.path.stem for sample in samples] for samples in divided(found.samples)[:3]]
    assert halves == [["0", "1"], ["2"], ["4", "5"]]
    assert [sample.group for sample in found.samples] == ["0", "0", "1", "2", "2"]


def test_a_path_is_the_same_however_a_table_writes_it(tmp_path):
    write(tmp_path / "clips", "1.mp4", "2.mp4")
    groups = []
    for folder in ("clips/", "./clips/", "clips/../clips/", f"{tmp_path}/clips/"):
        (tmp_path / "labels.csv").write_text(f"path,label\n{folder}1.mp4,jump\n{folder}2.mp4,wave")
        groups.append([sample.group for sample in find(None, str(tmp_path / "labels.csv")).samples])
    assert groups == 4 * [["clips/1.mp4", "clips/2.mp4"]]
    (tmp_path / "labels.csv").write_text("path,label\n1.mp4,jump\n2.mp4,wave")
    assert len(find(tmp_path / "clips", str(tmp_path / "labels.csv")).samples) == 2
    (tmp_path / "labels.csv").write_text("path,label,group\nclips/1.mp4,jump,1\nclips/2.mp4,wave,2")
    with pytest.raises(UserError, match="data.group: _g.., but .*labels.csv has a column group; leave one of them out"):
        find(None, str(tmp_path / "labels.csv"), "_g..")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("path\n1.mp4", "labels.csv has no column label; add it, separated by commas"),
        ("path,label\n1.mp4,jump\n9.mp4,wave", "labels.csv, row 3: .*9.mp4 does not exist; correct the path, or set"),
        ("path,label\n1.mp4,jump\n1.mp4,wave", "row 3: .*1.mp4 stands in an earlier row, too; remove one of them"),
        ("path,label\n\n1.mp4,jump\n2.mp4,", "labels.csv, row 4: has no label; add it, or remove the row"),
        ("path,label\n1.mp4,jump\nx.txt,wave", "x.txt: is no file of a clip .such as .*; convert"),
        ("path,label,split\n1.mp4,jump,train\n2.mp4,wave,dev", "labels.csv, row 3: dev is not a split; write train, v"),
        ("path,label,split\n1.mp4,jump,train\n2.mp4,wave,train", "csv has no clip of class jump in test; add some"),
        ("path,label,Split\n1.mp4,jump,train\n2.mp4,wave,test", "csv has a column 'Split'; rename it to split, or"),
        ("path,label,groups\n1.mp4,jump,a\n2.mp4,wave,b", "column 'groups'; rename it to group, or otherwise"),
        ("path,labels\n1.mp4,jump\n2.mp4,wave", "csv has a column 'labels'; rename it to label, or otherwise"),
        ("path,label,label\n1.mp4,jump,jump\n2.mp4,wave,wave", "csv has two columns 'label'; remove one"),
        ("path,label\n1.mp4,jump, high\n2.mp4,wave", "row 2: has more cells than the first row; put values with"),
        ("path,label\n\xff", "data.labels: .*labels.csv cannot be read .*; give a CSV file in UTF-8"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused(content, line, tmp_path):
    write(tmp_path, "1.mp4", "2.mp4", "x.txt")
    (tmp_path / "labels.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=line):
        find(None, str(tmp_path / "labels.csv"))


def test_a_class_with_fewer_than_five_samples_is_named():
    halves = {"training": samples_of(7), "validation": samples_of(9), "test": samples_of(10)}
    counts, (warning,) = counts_in_words(halves, NAMES)
    assert counts == "7 for training (jump 4, wave 3), 9 for validation (jump 5, wave 4), 10 for test"
    assert warning.startswith("data: validation has fewer than 5 samples of a class (wave 4), which")
    assert warning.endswith("; add samples, or cross-validate with -m data.fold=0,1,2,3,4")
    _, (warning,) = counts_in_words({"test": samples_of(3)}, NAMES)
    assert warning.endswith("; add samples, or cross-validate with -m data.test_fold=0,1,2,3,4")
    _, (warning,) = counts_in_words({"test": [sample._replace(split="test") for sample in samples_of(3)]}, NAMES)
    assert warning.endswith("accuracy; add samples")
    assert counts_in_words({"validation": []}, NAMES) == ("", [])
    many = [Sample(Path("x"), f"c{number // 12}", "", None) for number in range(12 * 9 - 2)]
    counts, _ = counts_in_words({"training": many}, [f"c{number}" for number in range(9)])
    assert counts == "106 for training (from c8 10 to c7 12)"
    assert counts_in_words({"training": samples_of(1)}, NAMES) == ("1 for training (jump 1, wave 0)", [])

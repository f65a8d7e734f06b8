"""docs/keep.py compares the epoch that one half of the validation images chooses with the last, on the other half."""

import pytest

from docs import keep
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import read_rows
from tests.scripts import train_tiny

ROWS = [
    {"epoch": "1", "first": "90", "second": "80", "images": "100"},
    {"epoch": "2", "first": "95", "second": "85", "images": "100"},
    {"epoch": "3", "first": "93", "second": "90", "images": "100"},
]


PLACE = "<!-- keep -->\n<!-- end -->\n"
ORIGIN = {"commit": "0123456", "processor": "a processor"}


def test_a_half_chooses_the_epoch_and_the_other_judges_it():
    same = {"epochs": 3, "images": 100, **ORIGIN}
    assert list(keep.choices("fast", 1, ROWS, ORIGIN)) == [
        keep.Choice("fast", 1, best_epoch=2, correct_after_best=85, correct_after_last=90, **same),
        keep.Choice("fast", 1, best_epoch=3, correct_after_best=93, correct_after_last=93, **same),
    ]


def test_ties_go_to_the_later_epoch():
    tied = [row | {"first": "90"} for row in ROWS]
    assert next(iter(keep.choices("fast", 1, tied, ORIGIN))).best_epoch == 3


def measured(*seeds, rows=ROWS) -> list[keep.Choice]:
    return [choice for seed in seeds for choice in keep.choices("fast", seed, rows, ORIGIN)]


def test_the_table_has_means_over_halves_and_seeds():
    text = keep.fill("before\n" + PLACE + "after\n", measured(1, 2, 3))
    means = "89.00 (89.00 to 89.00) | 91.50 (91.50 to 91.50) | +2.500 (+2.500 to +2.500)"
    assert f"| `fast` | 3 | 2, 3, 2, 3, 2, 3 of 3 | {means} |\n" in text
    assert text.endswith("<!-- end -->\nafter\n")
    assert keep.fill(text, measured(1, 2, 3)) == text


def test_a_seed_that_is_measured_again_replaces_its_choices():
    assert keep.added(measured(1, 2), measured(2, rows=ROWS[:1])) == measured(1) + measured(2, rows=ROWS[:1])


@pytest.mark.parametrize(
    ("page", "found", "line"),
    [
        ("no place", measured(1, 2, 3), "needs the line <!-- keep --> once"),
        (PLACE, measured(1, 2), "experiment=fast: give three or more jobs, each with its own seed"),
        (PLACE, measured(1, 2, 3, 3), "experiment=fast: give three or more jobs, each with its own seed"),
        (PLACE, measured(1, 2) + measured(3, rows=ROWS[:1]), "experiment=fast: give jobs with the same numbers of"),
    ],
)
def test_what_cannot_be_compared_is_refused(page, found, line):
    with pytest.raises(UserError, match=line):
        keep.fill(page, found)


def test_the_halves_are_counted_after_each_epoch(tmp_path):
    train_tiny(tmp_path, "trainer.max_epochs=2", "data.validation_images=41", keep.OPTION)  # one is in no half
    (folder,) = tmp_path.glob("outputs/*/*")
    rows, metrics = read_rows(folder / keep.HALVES), read_rows(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row, measured in zip(rows, metrics, strict=True):
        correct = int(row["first"]) + int(row["second"])
        assert round(41 * float(measured["val/accuracy"])) - correct in (0, 1)
        assert row["images"] == "20"


def test_the_page_has_the_table_of_what_was_measured():
    text = keep.PAGE.read_text()
    assert keep.fill(text, keep.read()) == text, "python -m docs.keep writes it again"

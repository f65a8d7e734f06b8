import pytest

from quadrant_lstm.errors import UserError
from quadrant_lstm.files import csv_cell, csv_text, read_csv, read_json, read_yaml, yaml_with_short_lists


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"["], ids=["not UTF-8", "brackets"])
@pytest.mark.parametrize(("read", "size"), [(read_json, 9_000), (read_yaml, 900), (read_csv, 140_000)])
def test_a_damaged_file_is_reported_in_one_line(read, size, content, tmp_path):
    (tmp_path / "file").write_bytes(content * size)
    with pytest.raises(UserError, match="file: cannot be read .*; restore"):
        read(tmp_path / "file")


def test_a_list_is_no_content_of_a_run(tmp_path):
    (tmp_path / "file").write_text("[]")
    with pytest.raises(UserError, match="file: cannot be read .it is not a mapping.; restore or delete it"):
        read_json(tmp_path / "file")


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@a", "\ta", "\ra"])
def test_a_text_is_no_formula_in_a_spreadsheet_and_steers_no_terminal(text):
    assert csv_cell(text) == f"'{text}"
    assert csv_cell("a\x1b[31m\nb\x9b") == "a?[31m\nb?"


@pytest.mark.parametrize("value", ["-1", "+0.5", "-1e-05", -0.5, 3, None, "", "a=b", "[1,-2]", "'"])
def test_numbers_and_other_texts_stay_in_a_csv_file(value):
    assert csv_cell(value) == value


def test_the_metrics_of_a_run_are_read_as_they_were_written(tmp_path):
    rows = [{"epoch": "1", "val/loss": "-0.5"}, {"epoch": "2", "val/loss": "-1e-05"}]
    (tmp_path / "metrics.csv").write_text(csv_text(["epoch", "val/loss"], rows))
    assert read_csv(tmp_path / "metrics.csv") == rows


def test_a_table_has_no_formulas():
    assert csv_text(["=key", "b"], [{"=key": "@a", "c": 1}, {"b": -1}]) == "'=key,b\n'@a,\n,-1\n"


def test_a_list_of_values_is_shown_on_one_line(tmp_path):
    content = (
        "a:\n  seed: ${seed}\n  orderings:\n  - - 1\n    - 2\n  - - 2\n    - 1\n  name: 猫\n  filters: []\nb: 1.0e-05\n"
    )
    (tmp_path / "file").write_text(content)
    shown = "a:\n  seed: ${seed}\n  orderings:\n  - [1, 2]\n  - [2, 1]\n  name: 猫\n  filters: []\nb: 1.0e-05\n"
    assert yaml_with_short_lists(tmp_path / "file") == shown

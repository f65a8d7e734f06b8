"""The scripts that make the pictures and tables of docs/."""

import json
import re

import pytest
from PIL import Image

from quadrant_lstm.pages import render
from tests.scripts import ROOT, script


def test_the_mistakes_of_a_run_are_drawn_into_a_file(finished_run, tmp_path):
    done = script("docs/mistakes.py", finished_run, tmp_path / "new" / "wrong.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "new" / "wrong.png").format == "PNG"


def test_the_orderings_are_drawn_into_a_file(tmp_path):
    assert script("docs/orderings.py", "orderings.png", cwd=tmp_path).returncode == 0
    assert Image.open(tmp_path / "orderings.png").format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("docs/mistakes.py", "nowhere", "wrong.png"), "run: nowhere is not a run folder"),
        (("docs/epochs.py", "nowhere"), "sweep: nowhere has no multirun.yaml; give a folder"),
        (("docs/ablations.py", "latest"), "sweep: latest, but "),
        (("src/quadrant_lstm/benchmark/__main__.py",), "benchmark: there is no conf/train.yaml here"),
        (
            ("src/quadrant_lstm/benchmark/__main__.py", "--rounds=0"),
            "--rounds: 0 is not a whole number of at least 1; ",
        ),
    ],
)
def test_a_missing_input_is_reported_in_one_line(arguments, line, tmp_path):
    done = script(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n"), done.stderr[: len(line)]) == (2, 1, line)
    assert not list(tmp_path.iterdir())


def test_the_page_to_draw_on_is_what_the_templates_give_now():
    page = (ROOT / "docs/draw.html").read_text()

    def found(pattern):
        (text,) = re.findall(pattern, page)
        return text

    again = render(
        "drawing/page.html",
        network=json.loads(found(r'id="network">(.*)</script>')),
        weights=found(r'id="weights">(.*)</script>'),
        kind=found(r"<p>(\w+), [\d,]+ parameters"),
        num_parameters=int(found(r"([\d,]+) parameters").replace(",", "")),
        results={"test/accuracy": float(found(r"classifies ([\d.]+)\u00a0%")) / 100, "test/images": 10_000},
        rounding=float(found(r"by at most ([\d.]+)")) - 5e-5,
        subject="digit",
        num_compared=1000,
    )
    assert again == page, "export docs/draw.html again, or put the new templates into it"

"""The code of docs/join.md runs, and the tables of stages in README and docs are what describe prints."""

import re
import textwrap

import pytest
import torch
from sybil.document import Document
from sybil.example import Example
from sybil.parsers.markdown import PythonCodeBlockParser

from quadrant_lstm import describe
from tests.networks import question_network
from tests.scripts import ROOT, call_unchecked

PAGE = ROOT / "docs/join.md"
DOCUMENT = Document.parse(str(PAGE), PythonCodeBlockParser())


def run_alone(line: int) -> None:
    """Runs the block in a process of its own: it must be complete."""
    (example,) = (example for example in DOCUMENT.examples() if example.line == line)
    example.evaluate()


@pytest.mark.parametrize("example", list(DOCUMENT.examples()), ids=lambda example: f"line_{example.line}")
def test_a_block_of_code_runs(example: Example):
    call_unchecked(run_alone, example.line)


def test_the_page_shows_what_its_code_prints(capsys):
    code, table = re.search(r"```python\n(.*?)```\n\n(    stage .*?)\n\n", PAGE.read_text(), re.DOTALL).groups()
    exec(code, {})
    assert capsys.readouterr().out == textwrap.dedent(table) + "\n"


def test_the_readme_shows_the_stages_of_the_question():
    table = str(describe(question_network(), torch.empty(64, 4, 1, 56, 14)))
    assert textwrap.indent(table, "    ") in (ROOT / "README.md").read_text()

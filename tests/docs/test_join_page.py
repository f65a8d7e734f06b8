"""The code of docs/join.md runs, and the tables of stages in README and docs are what describe prints."""

import re
import sys
import textwrap

import pytest
import torch
from sybil.document import Document
from sybil.example import Example
from sybil.parsers.markdown import PythonCodeBlockParser

from quadrant_lstm import describe
from tests.networks import question_network
from tests.scripts import ROOT, call_unchecked
from tests.sections import sections

PAGE = ROOT / "docs/join.md"
DOCUMENT = Document.parse(str(PAGE), PythonCodeBlockParser())
WRONG = re.compile(r"^# wrong: (.+)\n# (\w+): (.+)$", re.MULTILINE)  # code, and the error that it raises


def run_alone(line: int) -> None:
    """Runs the block in a process of its own, because it must be complete, and then its lines that are marked wrong."""
    (example,) = (example for example in DOCUMENT.examples() if example.line == line)
    example.evaluate()
    for code, error, message in WRONG.findall(example.parsed):
        with pytest.raises(Exception) as raised:
            exec(code, example.namespace)
        assert (raised.typename, str(raised.value)[: len(message)]) == (error, message)


@pytest.mark.parametrize("example", list(DOCUMENT.examples()), ids=lambda example: f"line_{example.line}")
def test_a_block_of_code_runs(example: Example):
    call_unchecked(run_alone, example.line)


def test_an_error_in_a_title_is_raised_in_its_section():
    text = PAGE.read_text()
    for section in text.split("\n## ")[1:]:
        messages = [message for *_, message in WRONG.findall(section)]
        for quoted in re.findall("`(.+)`", section.partition("\n")[0]):
            assert any(quoted in message for message in messages), quoted
    assert len(WRONG.findall(text)) == text.count("# wrong: ") > 15


def test_every_problem_keeps_its_number():
    """Links from elsewhere name them."""
    found = re.findall(r"^## (\d+\. [\w ,]+)", PAGE.read_text(), re.MULTILINE)
    assert found == [
        "1. Flatten loses the step axis", "2. The maps of an image have no step axis", "3. Reading text",
        "4. Training works, but predictions are as good as guesses", "5. Padded sequences",
        "6. Batch norm over steps and padding", "7. A frozen pretrained network whose results drift",
        "8. Out of memory with long sequences", "9. One label per step",
        "10. Several inputs or outputs at every step", "11. A long sequence in pieces", "12. TCHW, CTHW or THWC",
        "13. The summary fails at an LSTM", "14. An ONNX file for any batch and any number of steps",
        "15. Clips of unequal length", "16. ConvLSTM in PyTorch",
    ]  # fmt: skip


def test_the_contents_lead_from_an_error_to_the_section_that_shows_it():
    texts = sections(PAGE)
    links = re.findall(r"^\| (.+) \| \[.+\]\(#(.+)\) \|$", PAGE.read_text(), re.MULTILINE)
    assert {place for _, place in links} == texts.keys() - {"install-and-a-complete-network"}
    errors = [(error, texts[place]) for symptom, place in links for error in re.findall("^`(.+)`$", symptom)]
    assert len(errors) > 10
    assert all(error in text for error, text in errors)


def import_from_the_package_alone() -> None:
    """Fails if what the page imports needs more than the packages that it names."""
    missing = ("lightning", "torchmetrics", "hydra", "omegaconf", "pydantic", "tensorboard", "matplotlib", "jinja2")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("quadrant_lstm", *missing)]:
        del sys.modules[name]
    for name in missing:
        sys.modules[name] = None  # type: ignore[assignment]  # cannot be imported
    for line in set(re.findall(r"^from quadrant_lstm.* import .+$", PAGE.read_text(), re.MULTILINE)):
        exec(line)


def test_the_imports_of_the_page_need_neither_lightning_nor_hydra():
    call_unchecked(import_from_the_package_alone)


def test_the_page_shows_what_its_code_prints(capsys):
    (code,) = (example.parsed for example in DOCUMENT.examples() if "print(" in example.parsed)
    exec(code, {})
    assert f"\n\n{textwrap.indent(capsys.readouterr().out, '    ')}\n" in PAGE.read_text()


def test_the_readme_shows_the_stages_of_the_question():
    table = str(describe(question_network(), torch.empty(64, 4, 1, 56, 14)))
    assert textwrap.indent(table, "    ") in (ROOT / "README.md").read_text()

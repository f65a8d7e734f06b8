"""Runs the blocks of Python code on a page and the lines that it marks as wrong, and writes the files that it shows."""

import re
import warnings
from pathlib import Path

WRONG = re.compile(r"^# wrong: (.+)\n# (\w+): (.+)$", re.MULTILINE)  # code, and the error that it raises

Errors = list[tuple[str, str]]  # class and message


def blocks_of(page: Path) -> dict[int, str]:
    """Returns the blocks by the number of lines above."""
    text = page.read_text()
    blocks = re.finditer(r"```python\n(.*?)```", text, re.DOTALL)
    return {text[: block.start(1)].count("\n"): block[1] for block in blocks}


def write_files(page: Path, folder: Path) -> dict[str, str]:
    """Writes the files that the page shows below their names, and returns their texts."""
    text = page.read_text()
    files = dict(re.findall(r"^`([\w/.]+)`[^\n]*:\n\n```\w+\n(.*?)```", text, re.DOTALL | re.MULTILINE))
    assert len(files) == text.count("\n```\n")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return files


def errors_of(code: str, names: dict) -> Errors:
    """Runs the lines of a block that are marked wrong, and returns what they raise."""
    raised = []
    for line, expected, _ in WRONG.findall(code):
        try:
            with warnings.catch_warnings():
                if expected.endswith("Warning"):
                    warnings.simplefilter("error")
                exec(line, names)
        except Exception as error:
            raised.append((type(error).__name__, str(error)))
    return raised


def check_errors(code: str, raised: Errors) -> None:
    shown = WRONG.findall(code)
    assert len(shown) == code.count("# wrong: ")
    for (name, text), (_, expected, message) in zip(raised, shown, strict=True):
        assert name == expected
        assert message in text

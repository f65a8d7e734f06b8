"""Tests the layers of docs/architecture.md, which are configured in pyproject.toml."""

import re
import subprocess
import sys
from pathlib import Path

from tests.scripts import ROOT


def lint_imports(*options: str) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_imports_run_one_way():
    done = lint_imports()
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


def test_an_import_in_the_wrong_direction_is_detected(tmp_path):
    config = (ROOT / "pyproject.toml").read_text()
    upside_down = config.replace('    "model",\n    "data",\n', '    "data",\n    "model",\n')
    assert upside_down != config
    (tmp_path / "pyproject.toml").write_text(upside_down)
    done = lint_imports("--config", str(tmp_path / "pyproject.toml"))
    assert done.returncode == 1
    assert "quadrant_lstm.model is not allowed to import quadrant_lstm.data" in done.stdout.replace("\n", " ")


def test_private_names_of_other_packages_stand_in_one_module():
    private = re.compile(r"^ *(from|import) [\w.]*\._", re.MULTILINE)
    assert [file.name for file in (ROOT / "src").rglob("*.py") if private.search(file.read_text())] == ["compat.py"]

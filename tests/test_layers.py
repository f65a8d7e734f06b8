"""Tests the layers of docs/architecture.md, which are configured in pyproject.toml."""

import re
import subprocess
import sys
from pathlib import Path

from tests.scripts import ROOT


def test_imports_run_one_way():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


def test_private_names_of_other_packages_stand_in_one_module():
    private = re.compile(r"^ *(from|import) [\w.]*\._", re.MULTILINE)
    assert [file.name for file in (ROOT / "src").rglob("*.py") if private.search(file.read_text())] == ["compat.py"]

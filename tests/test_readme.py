"""The README against the tree it describes."""

import re
import subprocess

import pytest

from tests.scripts import ROOT

README = (ROOT / "README.md").read_text()
TREE = [line.split()[0] for line in README.split("## The tree")[1].split("```")[1].strip().splitlines()]


@pytest.mark.parametrize("path", TREE)
def test_each_file_of_the_tree_exists(path):
    assert (ROOT / path).exists()


def test_each_file_of_the_project_is_in_the_tree():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "src", "conf", "*.py"], cwd=ROOT, capture_output=True, text=True)
    folders = tuple(path for path in TREE if path.endswith("/"))
    missing = {
        path
        for path in listed.stdout.split()
        if path not in TREE and not path.startswith(folders) and not path.endswith("__init__.py")
    }
    assert missing == set()


def test_each_picture_is_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert len(pictures) >= 2
    assert all((ROOT / picture).is_file() for picture in pictures)

"""The README against the tree it describes."""

import re

import pytest

from tests.scripts import ROOT

README = (ROOT / "README.md").read_text()
TREE = [line.split()[0] for line in README.split("## The tree")[1].split("```")[1].strip().splitlines()]


@pytest.mark.parametrize("path", TREE)
def test_each_path_of_the_tree_exists(path):
    assert (ROOT / path).exists()


def test_each_folder_of_the_package_is_in_the_tree():
    packages = {f"{file.parent.relative_to(ROOT)}/" for file in ROOT.glob("src/quadrant_lstm/*/__init__.py")}
    assert packages <= set(TREE)


def test_each_picture_is_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert len(pictures) >= 2
    assert all((ROOT / picture).is_file() for picture in pictures)

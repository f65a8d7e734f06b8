"""Tests the root scripts with wrong input: one line, exit status 2, no files left, and no import of torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import write_idx_folder
from tests.mistakes import AFTER_TORCH, BEFORE_TORCH
from tests.scripts import ROOT


def fresh_script(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / name), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)


@pytest.fixture
def no_torch(tmp_path_factory, monkeypatch):
    """Makes a process that imports torch or lightning exit with status 99."""
    folder = tmp_path_factory.mktemp("no_torch")
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'import' and arguments[0].partition('.')[0] in ('torch', 'lightning'): os._exit(99)\n"
        "sys.addaudithook(hook)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))


def check_mistake(command, line, cwd):
    done = fresh_script(*command, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not list(cwd.iterdir()), "files were left"


@pytest.mark.parametrize("command", BEFORE_TORCH, ids=" ".join)
def test_a_mistake_is_reported_in_one_line_without_torch(command, tmp_path, no_torch):
    check_mistake(command, BEFORE_TORCH[command], tmp_path)


@pytest.mark.parametrize("command", AFTER_TORCH, ids=" ".join)
def test_a_mistake_in_a_library_argument_is_reported_in_one_line(command, tmp_path):
    check_mistake(command, AFTER_TORCH[command], tmp_path)


def test_the_fixture_detects_an_import_of_torch(tmp_path, no_torch):
    assert fresh_script("train.py", "trainer=smoke", cwd=tmp_path).returncode == 99


def test_a_broken_data_folder_is_reported_in_one_line(tmp_path, no_torch):
    data = write_idx_folder(tmp_path / "tiny")
    (data / "train-labels-idx1-ubyte").unlink()
    done = fresh_script("train.py", "data=idx", f"data.root={data}", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "has no train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz" in done.stderr


def test_help_lists_groups_and_examples(tmp_path):
    done = fresh_script("train.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for words in ("model: cnn_lstm", "trainer: default, smoke", "python train.py trainer=smoke", "run=latest"):
        assert words in done.stdout


@pytest.mark.parametrize("name", ["evaluate.py", "predict.py", "export.py"])
def test_the_help_of_the_other_scripts_has_an_example(name, tmp_path):
    done = fresh_script(name, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"python {name} run=latest" in done.stdout


@pytest.mark.parametrize("option", ["--help", ("--cfg", "job"), ("--cfg", "hydra")], ids=str)
def test_help_and_cfg_make_no_folder_and_import_no_torch(option, tmp_path, no_torch):
    options = [option] if isinstance(option, str) else option
    assert fresh_script("train.py", *options, cwd=tmp_path).returncode == 0
    assert not list(tmp_path.iterdir())


def test_tab_completion_works(monkeypatch):
    """Runs in the project's folder, because Hydra's completion accepts no hyphen in the path of a script."""
    monkeypatch.setenv("COMP_LINE", "python train.py model.lstm")
    monkeypatch.setenv("COMP_POINT", "500")
    monkeypatch.setenv("_COMP_WORD", "")
    command = [sys.executable, "train.py", "--shell-completion", "query=bash"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert "model.lstm_units=" in done.stdout, done.stderr

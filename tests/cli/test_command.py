"""The root scripts with wrong input, as processes: one line, exit status 2, nothing left behind, no wait for torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import write_idx_folder
from tests.mistakes import AFTER_TORCH, BEFORE_TORCH
from tests.scripts import ROOT


def script(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / name), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)


@pytest.fixture
def no_torch(tmp_path_factory, monkeypatch):
    """Ends a process that imports torch or lightning with status 99."""
    folder = tmp_path_factory.mktemp("no_torch")
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'import' and arguments[0].partition('.')[0] in ('torch', 'lightning'): os._exit(99)\n"
        "sys.addaudithook(hook)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))


def check_mistake(command, line, cwd):
    done = script(*command, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not list(cwd.iterdir()), "something was left behind"


@pytest.mark.parametrize("command", BEFORE_TORCH, ids=" ".join)
def test_a_mistake_is_one_line_before_torch_is_imported(command, tmp_path, no_torch):
    check_mistake(command, BEFORE_TORCH[command], tmp_path)


@pytest.mark.parametrize("command", AFTER_TORCH, ids=" ".join)
def test_a_mistake_in_an_argument_of_a_library_is_one_line(command, tmp_path):
    check_mistake(command, AFTER_TORCH[command], tmp_path)


def test_importing_torch_would_be_noticed(tmp_path, no_torch):
    assert script("train.py", "trainer=smoke", cwd=tmp_path).returncode == 99


def test_a_broken_data_folder_is_one_line(tmp_path, no_torch):
    data = write_idx_folder(tmp_path / "tiny")
    (data / "train-labels-idx1-ubyte").unlink()
    done = script("train.py", "data=idx", f"data.root={data}", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "has no train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz" in done.stderr


def test_help_is_a_page_for_a_person(tmp_path):
    done = script("train.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for words in ("model: cnn_lstm", "trainer: default, smoke", "python train.py trainer=smoke", "run=latest"):
        assert words in done.stdout


@pytest.mark.parametrize("name", ["evaluate.py", "predict.py", "export.py"])
def test_the_other_scripts_explain_themselves(name, tmp_path):
    done = script(name, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"python {name} run=latest" in done.stdout


@pytest.mark.parametrize("option", ["--help", ("--cfg", "job"), ("--cfg", "hydra")], ids=str)
def test_looking_makes_no_folder_and_imports_no_torch(option, tmp_path, no_torch):
    options = [option] if isinstance(option, str) else option
    assert script("train.py", *options, cwd=tmp_path).returncode == 0
    assert not list(tmp_path.iterdir())


def test_tab_completion_works(monkeypatch):
    """As bash asks for it in the project's folder: Hydra's pattern takes no hyphen in the path of a script."""
    monkeypatch.setenv("COMP_LINE", "python train.py model.lstm")
    monkeypatch.setenv("COMP_POINT", "500")
    monkeypatch.setenv("_COMP_WORD", "")
    command = [sys.executable, "train.py", "--shell-completion", "query=bash"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert "model.lstm_units=" in done.stdout, done.stderr

"""Tests the root scripts with wrong input: one line, exit status 2, no files left, and no import of torch."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from quadrant_lstm.cli.arguments import hydra_arguments, reader_arguments
from quadrant_lstm.cli.command import explain, mistake_in
from quadrant_lstm.compat import OF_COMPOSE
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import BEST, CONFIG
from tests.folders import tiny_data
from tests.mistakes import BEFORE_TORCH, MISTAKES
from tests.scripts import ROOT, Script, script, without


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
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")  # which has tests.composed


# Imports what the scripts import, composes a config, and runs each command in a fork, in a folder of its own.
RUN_IN_FORKS = """
import json, os, runpy, sys
import quadrant_lstm.cli.arguments, quadrant_lstm.cli.command, tests.composed
for number, command in enumerate(json.load(sys.stdin)):
    os.mkdir(str(number))
    if os.fork() == 0:
        for descriptor in (1, 2):
            os.dup2(os.open(f"{number}.{descriptor}", os.O_WRONLY | os.O_CREAT), descriptor)
        os.chdir(str(number))
        sys.argv = command
        runpy.run_path(sys.argv[0], run_name="__main__")
        os._exit(0)
    open(f"{number}.status", "w").write(str(os.waitstatus_to_exitcode(os.wait()[1])))
"""


def mistake(status: int, stdout: str, stderr: str, folder: Path, line: str) -> str:
    """What is wrong with the answer to a mistake, or nothing."""
    if (status, stdout, stderr.count("\n")) != (2, "", 1) or line not in stderr:
        return f"status {status}, {stdout!r}, {stderr!r} instead of {line!r}"
    return f"left {list(folder.iterdir())}" if any(folder.iterdir()) else ""


def test_unknown_keys_and_choices_are_answered_without_torch(tmp_path, no_torch):
    commands = [[str(ROOT / name), *arguments] for name, *arguments in BEFORE_TORCH]
    subprocess.run(
        [sys.executable, "-c", RUN_IN_FORKS], cwd=tmp_path, input=json.dumps(commands), text=True, check=True
    )
    wrong = {}
    for number, (command, line) in enumerate(BEFORE_TORCH.items()):
        status, stdout, stderr = ((tmp_path / f"{number}.{name}").read_text() for name in ("status", "1", "2"))
        if fault := mistake(int(status), stdout, stderr, tmp_path / str(number), line):
            wrong[" ".join(command)] = fault
    assert not wrong


@pytest.mark.parametrize("command", sorted(MISTAKES.keys() - BEFORE_TORCH.keys()), ids=" ".join)
def test_a_mistake_is_reported_in_one_line(command, tmp_path):
    done = script(*command, cwd=tmp_path)
    assert not mistake(done.returncode, done.stdout, done.stderr, tmp_path, MISTAKES[command])


def test_the_first_start_on_a_machine_prints_no_line_of_a_library(tmp_path, tmp_path_factory, monkeypatch):
    """On that start, matplotlib builds its cache of fonts and says so."""
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
    command, line = ("train.py", "trainer.num_nodes=2", "trainer.accelerator=cpu"), "trainer.num_nodes: 2 machines"
    done = fresh_script(*command, cwd=tmp_path)
    assert not mistake(done.returncode, done.stdout, done.stderr, tmp_path, line)
    assert list(Path(os.environ["MPLCONFIGDIR"]).iterdir())


def test_the_fixture_detects_an_import_of_torch(tmp_path, no_torch):
    assert fresh_script("train.py", "trainer=smoke", cwd=tmp_path).returncode == 99


def test_a_broken_data_folder_is_reported_in_one_line(tmp_path):
    data = tiny_data(tmp_path)
    (tmp_path / "tiny/train-labels-idx1-ubyte").unlink()
    done = script("train.py", *data, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "has no train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz" in done.stderr


def test_help_lists_groups_and_examples(tmp_path):
    done = fresh_script("train.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for words in (
        "model: cnn_lstm, deep, ",
        "trainer: default, overfit, smoke",
        "python train.py trainer=smoke",
        "run=latest",
    ):
        assert words in done.stdout


@pytest.mark.parametrize("name", ["evaluate", "predict", "export"])
def test_the_help_of_the_other_scripts_has_an_example_and_explains_each_key(name, tmp_path):
    done = fresh_script(f"{name}.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"python {name}.py run=latest" in done.stdout
    explained = [line.split()[:2] for line in done.stdout.partition("Keys and defaults:")[2].splitlines() if line]
    with initialize_config_dir(str(ROOT / "conf/readers"), **OF_COMPOSE):
        config = OmegaConf.to_container(compose(name))
    assert explained == [[key, "null" if value is None else value] for key, value in config.items()]


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


def test_options_may_contain_commas():
    assert hydra_arguments(["--config-dir=a,b", "seed=2"]) == ["--config-dir=a,b", "seed=2"]


def test_options_may_stand_between_overrides():
    given = ["-m", "seed=1,2", "--config-dir", "mine", "model=deep"]
    assert hydra_arguments(given) == ["-m", "--config-dir", "mine", "seed=1,2", "model=deep"]


def test_a_class_that_is_typed_as_model_replaces_the_default_model():
    given = ["model._target_=mine.Net", "model.units=3", "seed=2"]
    assert hydra_arguments(given) == ["~model", "+model._target_=mine.Net", "+model.units=3", "seed=2"]
    for other in (["model=mine", "model._target_=mine.Net"], ["model._target_=quadrant_lstm.model.deep.DeepCNNLSTM"]):
        assert hydra_arguments(other) == other


def test_help_with_sweep_starts_nothing(tmp_path):
    assert hydra_arguments([f"sweep={tmp_path}", "--help"]) == ["--help"]
    with pytest.raises(UserError, match="--cfg: shows the config of one run; leave out sweep=, or list the jobs"):
        hydra_arguments([f"sweep={tmp_path}", "--cfg", "job"])


def test_the_latest_run_is_found_once_for_all_jobs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs/2026-01-01/00-00-00"
    for file in (CONFIG, BEST):
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        (run / file).touch()
    assert hydra_arguments(["-m", "init=latest", "seed=1,2"]) == ["-m", f"init='{run}'", "seed=1,2"]


def test_only_mistakes_of_the_user_are_one_line():
    assert mistake_in(OSError(errno.ENOSPC, "No space left on device")) is not None
    assert mistake_in(MissingConfigException("no config", "model/cnn", ["deep"])) is not None
    for bug in (OSError(errno.ENOENT, "No such file or directory"), ConnectionError(), KeyError("a")):
        assert mistake_in(bug) is None


def test_a_plus_before_run_or_trust_changes_nothing():
    with pytest.raises(UserError, match="trust: is for the config of a run folder; add run=PATH"):
        hydra_arguments(["+trust=my_module"])
    with pytest.raises(UserError, match="run: nowhere is not a run folder"):
        hydra_arguments(["++run=nowhere", "+trust=my_module"])


@pytest.mark.parametrize(
    ("module", "extra", "words"),
    [("optuna", "tune", "hydra/sweeper=optuna"), ("submitit", "slurm", "hydra/launcher=submitit_slurm")],
)
def test_a_missing_extra_is_reported_in_one_line(module, extra, words, tmp_path):
    done = Script("train.py", "-m", "seed=1,2", words, cwd=tmp_path, before=without(module)).wait()
    remedy = f'install it with python -m pip install -e ".[{extra}]"'
    assert (done.returncode, done.stderr) == (2, f"{words}: needs {module}, which is not installed; {remedy}\n")


def test_a_script_that_reads_a_run_takes_one_value():
    with pytest.raises(UserError, match="^format: onnx,torch are several values; write one of them.$"):
        reader_arguments(["run=latest", "format=onnx,torch"])
    assert reader_arguments(["trust=a,b"]) == ["trust='a,b'"]  # read as two modules


@pytest.mark.parametrize(("script", "example"), [("predict.py", "run=latest"), ("train.py", "model.lstm_units=64")])
def test_the_example_of_an_override_is_one_of_the_script(script, example, monkeypatch):
    monkeypatch.setattr("sys.argv", [script])
    with pytest.raises(OverrideParseException) as raised:
        OverridesParser.create().parse_overrides(["digits"])
    assert str(explain(raised.value)) == f"digits: is not an override; write KEY=VALUE, e.g. {example}."

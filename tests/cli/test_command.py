"""Tests the root scripts with wrong input: one line, exit status 2, no files left, and no import of torch."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from quadrant_lstm.cli.arguments import hydra_arguments, parse, reader_arguments
from quadrant_lstm.cli.command import BeforeRun, Refused, mistake_in
from quadrant_lstm.compat import OF_COMPOSE
from quadrant_lstm.config.values import leaves
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import BEST, CONFIG
from tests.mistakes import MISTAKES
from tests.scripts import ROOT, Script, script


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_reported_in_one_line(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(ROOT / "train.py"), *words.split()])
    with pytest.raises((Exception, Refused)) as raised, initialize_config_dir(str(ROOT / "conf"), **OF_COMPOSE):
        config = compose("train", hydra_arguments(words.split()), return_hydra_config=True)
        BeforeRun().on_run_start(config)
    assert MISTAKES[words] in str(mistake_in(raised.value))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("train.py model.lstm_units=many", "model.lstm_units: 'many' is not a whole number of at least 1; "),
        ("train.py -m model.lstm_unit=5,6", "model.lstm_unit: there is no such key; did you mean model.lstm_units?"),
        ("evaluate.py runn=latest", "runn: there is no such key; did you mean run?"),
        ("predict.py run=nowhere", "run: nowhere is not a run folder"),
        ("export.py format=pdf", "format: 'pdf' is not one of onnx, torch, safetensors, keras, html; "),
    ],
)
def test_a_script_prints_the_line_and_leaves_no_files(words, line, tmp_path):
    done = script(*words.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(line)
    assert not list(tmp_path.iterdir())


def fresh_script(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, str(ROOT / command[0]), *command[1:])
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("modle=cnn_lstm", 2, "modle: there is no such key; did you mean model?"),
        ("--help", 0, r"(?s)model: cnn_lstm, deep, .*train.py trainer=smoke.*sweep=latest.*run=latest"),
        ("trainer=smoke", 99, "^$"),  # a run imports it
    ],
)
def test_only_runs_and_values_import_torch(words, status, says, tmp_path, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("no_torch")
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'import' and arguments[0].partition('.')[0] in ('torch', 'lightning'): os._exit(99)\n"
        "sys.addaudithook(hook)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    done = fresh_script("train.py", *words.split(), cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert re.search(says, done.stdout + done.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.reliability
def test_the_first_start_on_a_machine_prints_no_line_of_a_library(tmp_path, tmp_path_factory, monkeypatch):
    """On that start, matplotlib builds its cache of fonts and says so."""
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
    done = fresh_script("train.py", "trainer.num_nodes=2", "trainer.accelerator=cpu", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert list(Path(os.environ["MPLCONFIGDIR"]).iterdir())


@pytest.mark.parametrize("name", ["evaluate", "predict", "export"])
def test_the_help_of_the_other_scripts_has_an_example_and_explains_each_key(name, tmp_path):
    done = script(f"{name}.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"python {name}.py run=latest" in done.stdout
    explained = [line.split()[:2] for line in done.stdout.partition("Keys and defaults:")[2].splitlines() if line]
    with initialize_config_dir(str(ROOT / "conf_readers"), **OF_COMPOSE):
        config = OmegaConf.to_container(compose(name))
    assert explained == [[key, "null" if value is None else value] for key, value in leaves(config)]


def test_tab_completion_works():
    """Runs in the project's folder, because Hydra's completion accepts no hyphen in the path of a script."""
    line = {"COMP_LINE": "python train.py model.lstm", "COMP_POINT": "500", "_COMP_WORD": ""}
    done = script("train.py", "--shell-completion", "query=bash", cwd=ROOT, **line)
    assert "model.lstm_units=" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "translated"),
    [
        ("--config-dir=a,b seed=2", "--config-dir=a,b seed=2"),
        ("-m seed=1,2 --config-dir mine model=deep", "-m --config-dir mine seed=1,2 model=deep"),
        ("plan=true seed=1,2", "-m seed=1,2 hydra.sweeper.plan=true"),
        # a class that is typed as the model replaces the default one
        ("model._target_=mine.Net ++model.units=3", "~model +model._target_=mine.Net +model.units=3"),
        ("model._target_=mine.Net +trainer.x=1", "~model +model._target_=mine.Net +trainer.x=1"),
        ("model=mine model._target_=mine.Net", "model=mine model._target_=mine.Net"),
        ("model._target_=quadrant_lstm.model.deep.Net", "model._target_=quadrant_lstm.model.deep.Net"),
        ("sweep=nowhere --help", "--help"),
    ],
)
def test_what_is_typed_becomes_arguments_of_hydra(words, translated):
    assert hydra_arguments(words.split()) == translated.split()


def test_a_config_file_that_hydra_would_pass_over_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py")])
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").touch()
    assert hydra_arguments([f"--config-dir={tmp_path}"])
    (tmp_path / "experiment/quick.yaml").touch()
    line = f"{tmp_path}/experiment/quick.yaml: {ROOT}/conf/experiment/quick.yaml has the same name, and would be read"
    with pytest.raises(UserError, match=re.escape(line)):
        hydra_arguments([f"--config-dir={tmp_path}"])


@pytest.mark.parametrize("option", ["--help", "--hydra-help", "--cfg=job", "--info=all"])
def test_options_that_only_show_something_are_recognized(option):
    assert parse([option, "seed=2"]).only_shows
    assert not parse(["seed=2"]).only_shows


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


@pytest.mark.parametrize(
    ("module", "extra", "words"),
    [("optuna", "tune", "hydra/sweeper=optuna"), ("submitit", "slurm", "hydra/launcher=submitit_slurm")],
)
def test_a_missing_extra_is_reported_in_one_line(module, extra, words, tmp_path):
    before = f"""
import sys
for name in [name for name in sys.modules if name.startswith(("quadrant_lstm", "hydra_plugins"))]:
    del sys.modules[name]  # to be imported again
sys.modules[{module!r}] = None
"""
    done = Script("train.py", "-m", "seed=1,2", words, cwd=tmp_path, before=before).wait()
    remedy = f'install it with python -m pip install -e ".[{extra}]"'
    assert (done.returncode, done.stderr) == (2, f"{words}: needs {module}, which is not installed; {remedy}\n")


def test_a_script_that_reads_a_run_takes_one_value():
    with pytest.raises(UserError, match="^format: onnx,torch are several values; write one of them.$"):
        reader_arguments(["run=latest", "format=onnx,torch"])
    assert reader_arguments(["trust=a,b"]) == ["trust='a,b'"]  # read as two modules

"""docs/your_network.md works as it is written."""

import re
import shlex
import shutil
import sys
from functools import partial
from importlib import import_module

import pytest
import torch

from quadrant_lstm import load_run
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.network import Join
from tests.folders import TINY, run_folder, write_idx_folder
from tests.scripts import ROOT, Script, importing_from

PAGE = (ROOT / "docs/your_network.md").read_text()
FILES = dict(re.findall(r"^`([\w/.]+)`[^\n]*:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
TRAIN_NETWORK, SWEEP, TRAIN_JOIN = re.findall(r"^    python (train.py --config-dir.*)$", PAGE, re.MULTILINE)
(TYPED,) = re.findall(r"^    python (train.py model._target_.*)$", PAGE, re.MULTILINE)
EVALUATE_NETWORK, EVALUATE_JOIN = re.findall(r"^    python (evaluate.py .*)$", PAGE, re.MULTILINE)
SHORT = (*(override for override in TINY if not override.startswith("model")), "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the files of the page, in which its first command was run on small images."""
    folder = tmp_path_factory.mktemp("mine")
    write_files(folder)
    done = run(folder, *TRAIN_NETWORK.split(), "data=idx", f"data.root={folder / 'tiny'}", *SHORT)
    assert done.returncode == 0, done.stderr
    return folder


def write_files(folder) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    write_idx_folder(folder / "tiny")


def run(folder, *arguments) -> Script:
    return Script(*arguments, cwd=folder, before=importing_from(folder)).wait()


def test_a_class_and_its_config_have_at_most_40_lines():
    assert len(FILES) == PAGE.count("\n```\n") == 6
    assert all(text.count("\n") <= 35 for text in FILES.values())
    assert all(text.count("\n") <= 5 for name, text in FILES.items() if name.endswith(".yaml"))


def test_a_run_of_other_code_is_read_only_if_that_is_trusted(trained, monkeypatch):
    command, latest, trust = EVALUATE_NETWORK.split()
    refused = run(trained, command, latest)
    assert "my_network.MyNetwork is other code; add trust=my_network if you trust it." in one_line(refused)
    assert run(trained, command, latest, trust).returncode == 0
    assert run(trained, "train.py", latest, "trainer.max_epochs=2").returncode == 2
    assert run(trained, "train.py", latest, "trainer.max_epochs=2", trust).returncode == 0

    with pytest.raises(UserError, match="is other code"):
        load_run(run_folder(trained))
    assert "my_network" not in sys.modules
    monkeypatch.syspath_prepend(trained)
    network, _ = load_run(run_folder(trained), trust="my_network")
    assert network(torch.zeros(2, 4, 1, 16, 4)).shape == (2, 3)


def test_a_sweep_goes_over_the_keys_of_the_network(trained):
    words = [word for word in SWEEP.split() if not word.startswith("seed=")]
    done = run(trained, *words, "data=idx", f"data.root={trained / 'tiny'}", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "model.units=16" in done.stdout


def test_a_class_that_is_typed_needs_no_config(tmp_path):
    write_files(tmp_path)
    done = run(tmp_path, *TYPED.split(), "data=idx", f"data.root={tmp_path / 'tiny'}", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "GRU" in done.stdout


def test_an_encoder_and_a_recurrent_layer_of_other_files_are_joined(tmp_path):
    write_files(tmp_path)
    done = run(tmp_path, *TRAIN_JOIN.split(), "data=idx", f"data.root={tmp_path / 'tiny'}", *SHORT)
    assert done.returncode == 0, done.stderr
    assert re.search(r"recurrent.inputs +Linear +\[N, T, \d+\]", done.stdout)
    command, latest, trust = shlex.split(EVALUATE_JOIN)
    assert run(tmp_path, command, latest, "trust=my_encoder").returncode == 2
    assert run(tmp_path, command, latest, trust).returncode == 0


def test_only_the_weights_of_a_recurrent_layer_are_drawn_anew(monkeypatch, tmp_path):
    write_files(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    made = {"encoder": import_module("my_encoder").MyEncoder, "recurrent": import_module("my_recurrent").LeakyMean}

    def ones(name, *sizes, **options):
        part = made[name](*sizes, **options)
        for parameter in part.parameters():
            torch.nn.init.ones_(parameter)
        return part

    encoder, recurrent = partial(ones, "encoder", width=4), partial(ones, "recurrent", decay=0.5)
    sizes = {"dropout": 0.0, "lstm_units": 5, "dense_units": 4, "shared_tiles": False}
    network = Join((1, 8, 4), 3, 4, [[1, 2, 3, 4]], encoder, recurrent, **sizes)
    assert all((parameter == 1).all() for parameter in network.encoder.parameters())
    assert (network.recurrent.inputs.bias == 0).all()
    assert network.recurrent.inputs.weight.std() > 0.1


def test_a_network_may_make_its_own_tensors(trained):
    """The table of stages is then computed on the CPU."""
    code = (trained / "my_network.py").read_text()
    own = code.replace(
        "self.gru(self.encoder(frames))", "self.gru(self.encoder(frames), torch.zeros(1, len(frames), 32))"
    )
    (trained / "own_state.py").write_text("import torch\n" + own)
    options = ("--config-dir=my_conf", "model=my_network", "model._target_=own_state.MyNetwork", "hydra.run.dir=own")
    done = run(trained, "train.py", *options, "data=idx", f"data.root={trained / 'tiny'}", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "gru" in done.stdout


def one_line(done: Script) -> str:
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    return done.stderr


@pytest.mark.parametrize("plan", [(), ("-m", "seed=1,2", "plan=true")], ids=["run", "plan"])
def test_a_mistake_in_the_network_costs_one_line(trained, plan):
    """In a plan it stands below the table."""
    code = (trained / "my_network.py").read_text()
    (trained / "every_step.py").write_text(code.replace("outputs[:, -1]", "outputs"))
    options = (*plan, "model=my_network", "model._target_=every_step.MyNetwork", "hydra.run.dir=every")
    done = run(
        trained, "train.py", "--config-dir=my_conf", *options, "data=idx", f"data.root={trained / 'tiny'}", *SHORT
    )
    line = one_line(done)
    assert "MyNetwork was given [2, 4, 1, 16, 4] and returned [2, 4, 3]" in (done.stdout if plan else line)


def test_a_run_whose_module_is_gone_is_reported_in_one_line(trained):
    lost = shutil.copytree(run_folder(trained), trained / "lost")
    config = lost / ".hydra/config.yaml"
    config.write_text(config.read_text().replace("my_network", "gone"))
    line = one_line(run(trained, "evaluate.py", "run=lost", "trust=gone"))
    assert "model._target_: gone.MyNetwork cannot be imported (No module named 'gone'); put its file" in line


def test_a_module_that_is_missing_is_named(tmp_path):
    line = one_line(run(tmp_path, "train.py", "model._target_=nowhere.Network"))
    assert line.startswith("model._target_: nowhere.Network cannot be imported (No module named 'nowhere')")

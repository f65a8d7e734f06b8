"""The files and commands of docs/your_network.md work as they are written."""

import re
import shutil
import sys
from functools import partial
from importlib import import_module

import pytest
import torch
from torch import nn

from quadrant_lstm import load_run
from quadrant_lstm.cli.arguments import hydra_arguments
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.network import Join
from tests.code_blocks import write_files
from tests.folders import TINY, run_folder, tiny_data
from tests.scripts import ROOT, Script, importing_from, script, succeeds

PAGE = ROOT / "docs/your_network.md"
TEXT = PAGE.read_text()
TRAIN_NETWORK, SWEEP, TRAIN_JOIN = re.findall(r"^    python (train.py --config-dir.*)$", TEXT, re.MULTILINE)
(TYPED,) = re.findall(r"^    python (train.py model._target_.*)$", TEXT, re.MULTILINE)
EVALUATE_NETWORK, EVALUATE_JOIN = re.findall(r"^    python (evaluate.py .*)$", TEXT, re.MULTILINE)
SHORT = (*(override for override in TINY if not override.startswith("model")), "trainer.max_epochs=1")


def run(folder, command: str, how=succeeds) -> Script:
    """Runs a command of the page, on small images if it trains."""
    words = command.replace("'", "").split()
    data = (*tiny_data(folder), *SHORT) if words[0] == "train.py" else ()
    return how(*words, *data, cwd=folder, before=importing_from(folder))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    write_files(PAGE, folder)
    run(folder, TRAIN_NETWORK)
    return folder


def test_a_run_of_other_code_is_read_only_if_that_is_trusted(trained, monkeypatch):
    run(trained, EVALUATE_NETWORK)
    monkeypatch.chdir(trained)
    resume = ["run=latest", "trainer.max_epochs=2"]
    for read in (lambda: load_run(run_folder(trained)), lambda: hydra_arguments(resume)):
        with pytest.raises(UserError, match="my_network.MyNetwork is other code; add trust=my_network if you trust it"):
            read()
    assert "my_network" not in sys.modules
    monkeypatch.syspath_prepend(trained)
    assert hydra_arguments([*resume, "trust=my_network"])
    network, _ = load_run(run_folder(trained), trust="my_network")
    assert network(torch.zeros(2, 4, 1, 16, 4)).shape == (2, 3)


def test_a_sweep_goes_over_the_keys_of_the_network(trained):
    assert "model.units=16" in run(trained, re.sub(r" seed=\S+", "", SWEEP)).stdout


def test_a_class_that_is_typed_needs_no_config(tmp_path):
    write_files(PAGE, tmp_path)
    assert "GRU" in run(tmp_path, TYPED).stdout


def test_an_encoder_and_a_recurrent_layer_of_other_files_are_joined(tmp_path):
    write_files(PAGE, tmp_path)
    assert re.search(r"recurrent.inputs +Linear +\[N, T, \d+\]", run(tmp_path, TRAIN_JOIN).stdout)
    run(tmp_path, EVALUATE_JOIN)


def test_only_the_weights_of_a_recurrent_layer_are_drawn_anew(trained, monkeypatch):
    monkeypatch.syspath_prepend(trained)
    for layer in (nn.Conv2d, nn.Linear):
        monkeypatch.setattr(layer, "reset_parameters", lambda self: [nn.init.ones_(own) for own in self.parameters()])
    encoder = partial(import_module("my_encoder").MyEncoder, width=4)
    recurrent = partial(import_module("my_recurrent").LeakyMean, decay=0.5)
    options = {"shared_tiles": False, "differences": False}
    network = Join((1, 8, 4), 3, 4, [[1, 2, 3, 4]], encoder, recurrent, 0.0, 5, 4, **options)
    assert all((parameter == 1).all() for parameter in network.encoder.module[0].parameters())
    assert (network.recurrent.inputs.bias == 0).all()
    assert network.recurrent.inputs.weight.std() > 0.1


@pytest.mark.parametrize("words", ["hydra.run.dir=every", "-m seed=1,2 plan=true"])
def test_a_mistake_in_the_network_costs_one_line(trained, words):
    """In a plan it stands below the table."""
    (trained / "every_step.py").write_text((trained / "my_network.py").read_text().replace("outputs[:, -1]", "outputs"))
    done = run(trained, f"{TRAIN_NETWORK} {words} model._target_=every_step.MyNetwork", script)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    said = done.stdout if "plan" in words else done.stderr
    assert "MyNetwork was given [2, 4, 1, 16, 4] and returned [2, 4, 3]" in said


def test_a_run_whose_module_is_gone_is_reported(trained):
    lost = shutil.copytree(run_folder(trained), trained / "lost")
    config = lost / ".hydra/config.yaml"
    config.write_text(config.read_text().replace("my_network", "gone"))
    message = "model._target_: gone.MyNetwork cannot be imported: No module named 'gone'; correct the name, or"
    with pytest.raises(UserError, match=message):
        load_run(lost, trust="gone")

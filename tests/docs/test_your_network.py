"""docs/your_network.md works as it is written."""

import re
import sys

import pytest
import torch

from quadrant_lstm import load_run
from quadrant_lstm.errors import UserError
from tests.folders import TINY, run_folder, write_idx_folder
from tests.scripts import ROOT, Script

PAGE = (ROOT / "docs/your_network.md").read_text()
SHORT = (*(override for override in TINY if not override.startswith("model")), "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder with the two files, in which the page's first command was run on small images."""
    folder = tmp_path_factory.mktemp("mine")
    for language, name in (("python", "my_network.py"), ("yaml", "my_conf/model/my_network.yaml")):
        (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code)
    data = write_idx_folder(folder / "tiny")
    (train,) = re.findall(r"python (train.py --config-dir.*model=my_network)$", PAGE, re.MULTILINE)
    done = run(folder, *train.split(), "data=idx", f"data.root={data}", *SHORT)
    assert done.returncode == 0, done.stderr
    return folder


def run(folder, *arguments) -> Script:
    return Script(*arguments, cwd=folder, before=f"import sys; sys.path.insert(0, {str(folder)!r})").wait()


def test_both_files_have_at_most_40_lines():
    assert sum(code.count("\n") for code in re.findall(r"```\w+\n(.*?)```", PAGE, re.DOTALL)) <= 40


def test_a_run_of_other_code_is_read_only_if_that_is_trusted(trained, monkeypatch):
    (evaluate,) = re.findall(r"python (evaluate.py .*)", PAGE)
    command, latest, trust = evaluate.split()
    refused = run(trained, command, latest)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "my_network.MyNetwork is other code; add trust=my_network if you trust it." in refused.stderr
    assert run(trained, command, latest, trust).returncode == 0
    assert run(trained, "train.py", latest, "trainer.max_epochs=2").returncode == 2
    assert run(trained, "train.py", latest, "trainer.max_epochs=2", trust).returncode == 0

    with pytest.raises(UserError, match="is other code"):
        load_run(run_folder(trained))
    assert "my_network" not in sys.modules
    monkeypatch.syspath_prepend(trained)
    network, _ = load_run(run_folder(trained), trust=["my_network"])
    assert network(torch.zeros(2, 4, 1, 16, 4)).shape == (2, 3)


def test_a_sweep_goes_over_the_keys_of_the_network(trained):
    (sweep,) = re.findall(r"python (train.py .*-m .*)$", PAGE.partition("## Only")[0], re.MULTILINE)
    words = [word for word in sweep.split() if not word.startswith("seed=")]
    done = run(trained, *words, "data=idx", f"data.root={trained / 'tiny'}", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "model.units=16" in done.stdout


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


def test_a_module_that_is_missing_is_named(tmp_path):
    done = run(tmp_path, "train.py", "model._target_=nowhere.Network")
    assert done.returncode == 2
    assert done.stderr.startswith("model._target_: nowhere.Network cannot be imported (No module named 'nowhere')")
    assert done.stderr.count("\n") == 1

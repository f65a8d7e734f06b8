"""The Python code of docs/export.md runs on the files of a run."""

import re
import shutil

import pytest

from quadrant_lstm.run_folder import read_results
from tests.scripts import ROOT, script

PAGE = (ROOT / "docs/export.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def exported(smoke_run, tmp_path_factory):
    run = shutil.copytree(smoke_run, tmp_path_factory.mktemp("exported") / "run")
    for format in ("onnx", "torch", "safetensors"):
        assert script("export.py", "run=run", f"format={format}", cwd=run.parent).returncode == 0
    return run


@pytest.mark.parametrize(
    ("block", "printed"), list(zip(BLOCKS, ["[[1, 2, 3, 4], ", "ACCURACY\n", "data:\n"], strict=True))
)
def test_code_runs_and_prints_metadata(block, printed, exported, monkeypatch, capsys):
    monkeypatch.chdir(exported)
    names = {}
    exec(block, names)
    accuracy = str(read_results(exported)["test/accuracy"])
    assert printed.replace("ACCURACY", accuracy) in capsys.readouterr().out
    if "probabilities" in names:
        assert names["probabilities"].shape == (3, 10)
        assert float(names["probabilities"].sum()) == pytest.approx(3, abs=1e-4)
    else:
        assert tuple(names["weights"]["recurrent.weight_ih_l0"].shape) == (20, 4160)


def test_the_keys_of_the_metadata_are_those_of_a_file(exported):
    import onnx

    (table,) = re.findall(r"\| key \| content \|\n.*?\n((?:\|.*\n)+)", PAGE)
    listed = {key for line in table.splitlines() for key in re.findall(r"`(\w+)`", line.split("|")[1])}
    properties = onnx.load(exported / "network.onnx").metadata_props
    assert listed == {entry.key for entry in properties}

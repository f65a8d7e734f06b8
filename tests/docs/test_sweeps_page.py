"""The experiments and commands of docs/sweeps.md work as they are written."""

import re

import pytest

from tests.code_blocks import write_files
from tests.folders import TINY, tiny_data
from tests.scripts import ROOT, script, succeeds

PAGE = ROOT / "docs/sweeps.md"
PLAIN, CHANGED, LIST = re.findall(r"^    python (train.py --config-dir.*)$", PAGE.read_text(), re.MULTILINE)


@pytest.fixture(autouse=True)
def _files(tmp_path):
    write_files(PAGE, tmp_path)


@pytest.mark.parametrize(("command", "rate"), [(PLAIN, "0.007"), (CHANGED, "0.005")])
def test_an_experiment_of_ones_own_changes_another_one(command, rate, tmp_path):
    done = succeeds(*command.split(), "--cfg=job", cwd=tmp_path)
    for line in ("lstm_units: 128", "max_epochs: 12", f"lr: {rate}", "rotation: 10.0"):
        assert f"  {line}\n" in done.stdout


def test_a_sweep_over_experiments_is_a_list_of_configs(tmp_path):
    done = script(*LIST.split(), *tiny_data(tmp_path, size=28), TINY[1], "plan=true", cwd=tmp_path)
    jobs = [line.split() for line in done.stdout.splitlines()[1:5]]
    assert [job[1:3] for job in jobs] == [["wide", "1"], ["wide", "2"], ["narrow", "1"], ["narrow", "2"]], done.stderr
    assert len({job[3] for job in jobs}) == 2  # numbers of parameters

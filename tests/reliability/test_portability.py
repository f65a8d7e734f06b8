"""Tests that one device works without the modules that Windows lacks and that several processes report them."""

from pathlib import Path

import pytest

from tests.folders import TINY, tiny_data
from tests.scripts import refused, succeeds

# Run before a script, whose libraries, which know Windows, are imported by then.
TAKE_AWAY = """
import os, sys

for module in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[module] = None
for name in ("fork", "forkpty", "getpgid", "getuid", "killpg", "sched_getaffinity", "setsid", "O_DIRECTORY"):
    delattr(os, name)
opened = os.open

def open_files_only(path, *arguments, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return opened(path, *arguments, **options)

os.open = open_files_only
for module in [name for name in sys.modules if name.startswith(("quadrant_lstm", "hydra_plugins"))]:
    del sys.modules[module]  # to be imported again, without all that
"""


def words(cwd: Path) -> tuple[str, ...]:
    return "train.py", *tiny_data(cwd), *TINY


def test_one_device_works_without_what_windows_lacks(tmp_path):
    succeeds(*words(tmp_path), cwd=tmp_path, before=TAKE_AWAY)
    succeeds("evaluate.py", "run=latest", cwd=tmp_path, before=TAKE_AWAY)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("trainer.devices=2", "trainer.accelerator=cpu"), "trainer.devices: 2 processes need Linux or macOS; write"),
        (("-m", "seed=1,2"), "hydra/launcher: local forks a process per job, which needs Linux or macOS; add hydra/"),
    ],
)
def test_several_processes_report_what_they_need(arguments, line, tmp_path):
    assert refused(*words(tmp_path), *arguments, cwd=tmp_path, before=TAKE_AWAY).startswith(line)


def test_a_sweep_runs_in_one_process(tmp_path):
    succeeds(*words(tmp_path), "-m", "seed=1,2", "hydra/launcher=basic", cwd=tmp_path, before=TAKE_AWAY)
    assert len(list(tmp_path.glob("outputs/sweeps/*/*/*/results.json"))) == 2

"""Tests that one device works without the modules that Windows lacks and that several processes report them."""

import pytest

from tests.folders import TINY, write_idx_folder
from tests.scripts import Script

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


@pytest.fixture
def run(tmp_path):
    write_idx_folder(tmp_path / "tiny")
    return lambda *arguments: Script(*arguments, cwd=tmp_path, before=TAKE_AWAY).wait()


def test_one_device_works_without_what_windows_lacks(run):
    done = run("train.py", "data=idx", "data.root=tiny", *TINY)
    assert done.returncode == 0, done.stderr
    done = run("evaluate.py", "run=latest")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("trainer.devices=2", "trainer.accelerator=cpu"), "trainer.devices: 2 processes need Linux or macOS; write"),
        (("-m", "seed=1,2"), "hydra/launcher: local forks a process per job, which needs Linux or macOS; add hydra/"),
    ],
)
def test_several_processes_report_what_they_need(arguments, line, run):
    done = run("train.py", "data=idx", "data.root=tiny", *TINY, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_a_sweep_runs_in_one_process(run, tmp_path):
    done = run("train.py", "data=idx", "data.root=tiny", *TINY, "-m", "seed=1,2", "hydra/launcher=basic")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/sweeps/*/*/*/results.json"))) == 2

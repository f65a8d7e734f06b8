import gc
import platform
import signal
import subprocess
import sys

import pytest
import torch

from quadrant_lstm.processes.launch import num_threads, prepare_for_training
from tests.scripts import ROOT


@pytest.mark.parametrize(
    ("of_the_job", "of_its_parent", "threads"),
    [(None, None, 64), ("max 100000", None, 64), ("200000 100000", None, 2), ("150000 100000", None, 2),
     ("5000 100000", None, 1), ("max 100000", "300000 100000", 3), ("900000 100000", "300000 100000", 3)],
)  # fmt: skip
def test_torch_uses_no_more_threads_than_the_quota_has_cores(of_the_job, of_its_parent, threads, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/jobs/7\n")
    job = tmp_path / "sys/fs/cgroup/jobs/7"
    job.mkdir(parents=True)
    for folder, quota in ((job, of_the_job), (job.parent, of_its_parent)):
        if quota:
            (folder / "cpu.max").write_text(quota + "\n")
    assert num_threads(tmp_path) == threads


@pytest.fixture
def undone():
    """Undoes what prepare_for_training does to this process."""
    yield
    gc.unfreeze()
    torch.set_flush_denormal(False)


def test_a_process_prepared_twice_flushes_denormals(undone):
    prepare_for_training()
    prepare_for_training()
    assert (torch.tensor([1e-40]) * 0.5).item() == 0


class Interrupts:
    """Stands for Ctrl-C while Python deletes an object."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_while_garbage_is_collected_is_not_lost(undone, ctrl_c):
    gc.disable()  # only prepare_for_training may collect it
    try:
        garbage = Interrupts()
        garbage.itself = garbage
        del garbage
        with pytest.raises(KeyboardInterrupt):
            prepare_for_training()
    finally:
        gc.enable()


# By default, the allocator maps the same pages again for each batch. Extensions report frozen objects as leaked.
PROGRAM = """
import atexit, gc, resource, sys, torch
from quadrant_lstm import load_run
from quadrant_lstm.processes.launch import prepare_for_training
load_run(sys.argv[1])
convolution, frames = torch.nn.Conv2d(1, 32, 3), torch.rand(2048, 1, 56, 14)
with torch.inference_mode():
    for batch in range(8):
        if batch == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        convolution(frames)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
atexit.register(lambda: print(gc.get_freeze_count()))
prepare_for_training()
print(gc.get_freeze_count())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is configured")
def test_a_loaded_network_keeps_the_memory_it_needs_and_no_object_stays_frozen(finished_run):
    result = subprocess.run([sys.executable, "-c", PROGRAM, finished_run], cwd=ROOT, capture_output=True, text=True)
    faults, frozen, at_the_end = map(int, result.stdout.split())
    assert faults < 20_000, result.stderr  # by default 200,000
    assert frozen > 10_000 and at_the_end == 0

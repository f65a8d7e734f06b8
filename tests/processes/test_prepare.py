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


def test_a_process_prepared_twice_flushes_denormals_and_keeps_objects_frozen(undone):
    prepare_for_training()
    prepare_for_training()
    assert gc.get_freeze_count() > 100_000
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


def test_no_object_is_frozen_when_the_process_ends():
    """Extensions report the objects that remain at the end as leaked."""
    program = (
        "import atexit, gc\n"
        "from quadrant_lstm.processes.launch import prepare_for_training\n"
        "atexit.register(lambda: print(gc.get_freeze_count()))\n"
        "prepare_for_training()\n"
        "print(gc.get_freeze_count() > 10_000)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.split() == ["True", "0"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is configured")
def test_a_loaded_network_keeps_the_memory_it_needs(smoke_run):
    """By default, the allocator maps the same pages again for each batch."""
    program = (
        "import resource, sys, torch\n"
        "from quadrant_lstm import load_run, sequences\n"
        "network, cfg = load_run(sys.argv[1])\n"
        "frames = sequences(torch.rand(512, 1, 28, 28), cfg.data.orderings)\n"
        "with torch.inference_mode():\n"
        "    for batch in range(8):\n"
        "        if batch == 3: before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "        network(frames)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    result = subprocess.run([sys.executable, "-c", program, smoke_run], cwd=ROOT, capture_output=True, text=True)
    assert int(result.stdout) < 20_000, result.stderr  # by default: 140,000

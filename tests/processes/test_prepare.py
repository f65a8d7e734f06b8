import gc
import platform
import subprocess
import sys

import pytest
import torch

from quadrant_lstm.processes.prepare import cores_allowed, make_ready
from tests.scripts import ROOT


@pytest.mark.parametrize(("quota", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)])
def test_a_container_s_quota_is_counted_in_cores(quota, cores, tmp_path):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cores_allowed(tmp_path / "cpu.max") == cores


@pytest.mark.parametrize("content", [None, "max 100000"])
def test_without_a_quota_torch_keeps_its_threads(content, tmp_path):
    if content:
        (tmp_path / "cpu.max").write_text(content)
    assert cores_allowed(tmp_path / "cpu.max") == torch.get_num_threads()


def test_a_process_made_ready_twice_flushes_denormals_and_leaves_objects_alone():
    make_ready()
    make_ready()
    assert gc.get_freeze_count() > 100_000
    assert (torch.tensor([1e-40]) * 0.5).item() == 0
    gc.unfreeze()
    torch.set_flush_denormal(False)


def test_nothing_stays_frozen_as_the_process_ends():
    """Extensions report what is left at the end as leaked."""
    program = (
        "import atexit, gc\n"
        "from quadrant_lstm.processes.prepare import make_ready\n"
        "atexit.register(lambda: print(gc.get_freeze_count()))\n"
        "make_ready()\n"
        "print(gc.get_freeze_count() > 10_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "0"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is set")
def test_a_loaded_network_keeps_the_memory_it_needs(smoke_run):
    """Left alone, the allocator maps the same pages anew for each batch."""
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
    done = subprocess.run([sys.executable, "-c", program, smoke_run], cwd=ROOT, capture_output=True, text=True)
    assert int(done.stdout) < 20_000, done.stderr  # left alone: 140,000

import gc
import platform
import subprocess
import sys

import pytest
import torch

from quadrant_lstm.processes.prepare import cores_allowed, prepare_for_training
from tests.scripts import ROOT


@pytest.mark.parametrize(("quota", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)])
def test_a_container_quota_is_converted_to_cores(quota, cores, tmp_path):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cores_allowed(tmp_path / "cpu.max") == cores


@pytest.mark.parametrize("content", [None, "max 100000"])
def test_without_a_quota_torch_keeps_its_number_of_threads(content, tmp_path):
    if content:
        (tmp_path / "cpu.max").write_text(content)
    assert cores_allowed(tmp_path / "cpu.max") == torch.get_num_threads()


def test_a_process_prepared_twice_flushes_denormals_and_keeps_objects_frozen():
    prepare_for_training()
    prepare_for_training()
    assert gc.get_freeze_count() > 100_000
    assert (torch.tensor([1e-40]) * 0.5).item() == 0
    gc.unfreeze()
    torch.set_flush_denormal(False)


def test_no_object_is_frozen_when_the_process_ends():
    """Extensions report the objects that remain at the end as leaked."""
    program = (
        "import atexit, gc\n"
        "from quadrant_lstm.processes.prepare import prepare_for_training\n"
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

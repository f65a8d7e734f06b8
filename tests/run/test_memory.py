import contextlib

import pytest
import torch
from torch import nn

from quadrant_lstm.errors import UserError
from quadrant_lstm.run import check_network as memory
from tests.scripts import Script, script

CPU = torch.device("cpu")


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4 * 100, 50), nn.Tanh(), nn.Dropout(0.5), nn.Linear(50, 3))


def test_an_image_needs_its_saved_tensors_and_the_largest_gradient():
    frames, tanh, mask, dropout = 4 * 4 * 100, 4 * 50, 4 * 50, 4 * 50  # bytes
    found = memory.bytes_per_image(network(), (1, 4, 1, 10, 10), CPU, contextlib.nullcontext)
    assert found == frames + tanh + mask + dropout + frames  # the second time as a gradient


def test_weights_do_not_grow_with_the_batch():
    class Prior(nn.Module):  # saves nothing for the backward pass
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(3))

        def forward(self, frames):
            return self.logits.expand(len(frames), -1)

    assert memory.bytes_per_image(Prior(), (4, 6), CPU, contextlib.nullcontext) == 0
    wide = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 5000))  # the second weight is the largest tensor that is saved
    assert memory.bytes_per_image(wide, (4, 6), CPU, contextlib.nullcontext) == 4 * 6 + 4 * 2 + 4 * 6


def test_frames_that_do_not_fit_into_memory_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_to_cpu", lambda: 5_000_000_000)
    memory.check_frame_memory(2_500_000_000, 2)
    with pytest.raises(UserError, match="data.cache_gb: .* need 6.0 GB in all processes, and 5.0 GB are available"):
        memory.check_frame_memory(3_000_000_000, 2)


def test_the_largest_power_of_two_that_fits_is_named(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1_000_000)
    with pytest.raises(UserError, match="data.batch_size: a training step of 500 samples .* write at most 128.$"):
        memory.check_memory(network(), (500, 4, 1, 10, 10), CPU, contextlib.nullcontext)
    memory.check_memory(network(), (128, 4, 1, 10, 10), CPU, contextlib.nullcontext)
    with pytest.raises(UserError, match="choose a smaller model.$"):
        memory.check_memory(nn.Linear(1000, 1000), (1, 1000), CPU, contextlib.nullcontext)
    with pytest.raises(UserError, match="write at most 32.$"):
        memory.check_memory(network(), (128, 4, 1, 10, 10), CPU, contextlib.nullcontext, num_processes=2)


def test_no_random_number_is_drawn():
    initialized, before = network(), torch.get_rng_state()
    memory.check_memory(initialized, (1, 4, 1, 10, 10), CPU, contextlib.nullcontext)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_is_too_large_is_reported_in_one_line(tmp_path):
    done = script("train.py", "model.filters=[999]", "data.batch_size=100000", "trainer.accelerator=cpu", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("data.batch_size: a training step of 55,000 samples needs about ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("outputs/*/*"))


def write_files(folder, **files):
    for name, text in files.items():
        file = folder / name.replace("__", "/").replace("_max", ".max").replace("_current", ".current")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_the_limit_of_a_container_counts(tmp_path):
    assert memory.available_to_cpu(tmp_path) is None
    write_files(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable:    8 kB\n", proc__self__cgroup="0::/job/step\n")
    assert memory.available_to_cpu(tmp_path) == 8 * 1024
    job = "sys__fs__cgroup__job"
    write_files(
        tmp_path,
        **{f"{job}__step__memory_max": "max\n", f"{job}__memory_max": "5000\n", f"{job}__memory_current": "1000\n"},
    )
    assert memory.available_to_cpu(tmp_path) == 4000


@pytest.mark.reliability
@pytest.mark.timeout(300)
def test_memory_does_not_grow_over_the_epochs(tmp_path, record_figure):
    process = Script("train.py", "trainer.max_epochs=10", "trainer.limit_train_batches=100", cwd=tmp_path)
    megabytes = [process.resident_megabytes() for line in process.lines() if " train/loss " in line]
    assert process.returncode == 0, process.stderr
    assert len(megabytes) == 10
    record_figure(f"memory after the 2nd and the 10th epoch: {megabytes[1]:.0f} and {megabytes[9]:.0f} MB")
    assert megabytes[9] - megabytes[1] < 10

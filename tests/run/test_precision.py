from pathlib import Path

import pytest
import torch

from quadrant_lstm.run import build as module
from quadrant_lstm.run.build import bf16_instructions, resolve_precision

CPU_INFO = Path("/proc/cpuinfo")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "64-true"])
def test_other_precisions_are_kept(precision):
    assert resolve_precision(precision, "cpu") == precision


@pytest.mark.parametrize(
    ("accelerator", "instructions", "chosen"),
    [("gpu", ["amx_bf16"], "32-true"), ("cpu", ["avx512_bf16"], "bf16-mixed"), ("cpu", [], "32-true")],
)
def test_auto_is_bf16_on_a_cpu_that_multiplies_bf16(accelerator, instructions, chosen, monkeypatch):
    monkeypatch.setattr(module, "bf16_instructions", lambda: instructions)
    assert resolve_precision("auto", accelerator) == chosen


@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="torch 2.10 does not tell")
@pytest.mark.skipif(not CPU_INFO.exists(), reason="there is no /proc/cpuinfo to compare with")
def test_the_instructions_are_those_that_the_kernel_lists():
    listed = [name for name in ("amx_bf16", "avx512_bf16") if name in CPU_INFO.read_text()]
    assert bf16_instructions() == listed

from pathlib import Path

import pytest

from quadrant_lstm.run.precision import resolve_precision

CPU_INFO = Path("/proc/cpuinfo")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "64-true"])
def test_other_precisions_are_kept(precision):
    assert resolve_precision(precision, "cpu") == precision


def test_auto_is_32_true_on_a_gpu(caplog):
    with caplog.at_level("INFO"):
        assert resolve_precision("auto", "gpu") == "32-true"
    assert "trainer.precision: auto is 32-true here" in caplog.text


def test_auto_is_bf16_on_a_cpu_that_multiplies_bf16():
    if not CPU_INFO.exists():
        pytest.skip("no /proc/cpuinfo to compare with")
    has_bf16 = any(name in CPU_INFO.read_text() for name in ("amx_bf16", "avx512_bf16"))
    assert resolve_precision("auto", "cpu") == ("bf16-mixed" if has_bf16 else "32-true")

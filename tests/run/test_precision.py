from pathlib import Path

import pytest

from quadrant_lstm.run.precision import resolve

CPU = Path("/proc/cpuinfo")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "64-true"])
def test_what_is_not_auto_stays(precision):
    assert resolve(precision, "cpu") == precision


def test_auto_is_32_true_where_nothing_was_measured(caplog):
    with caplog.at_level("INFO"):
        assert resolve("auto", "gpu") == "32-true"
    assert "trainer.precision: auto is 32-true here" in caplog.text


def test_auto_is_bf16_on_a_cpu_that_multiplies_it():
    if not CPU.exists():
        pytest.skip("no /proc/cpuinfo to compare with")
    multiplies = any(name in CPU.read_text() for name in ("amx_bf16", "avx512_bf16"))
    assert resolve("auto", "cpu") == ("bf16-mixed" if multiplies else "32-true")

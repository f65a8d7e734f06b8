import pytest

from quadrant_lstm.run_folder import LAST
from tests.folders import run_folder
from tests.scripts import Script, script


def test_a_batch_that_is_too_large_is_reported_in_one_line(tmp_path):
    done = script("train.py", "model.filters=[9999]", "data.batch_size=100000", "trainer.accelerator=cpu", cwd=tmp_path)
    assert done.returncode == 2
    remedy = "write a smaller value, or choose a smaller model"
    assert done.stderr == f"data.batch_size: a step of 100,000 samples does not fit into memory; {remedy}.\n"
    assert not (run_folder(tmp_path) / LAST).exists()


@pytest.mark.reliability
@pytest.mark.timeout(300)
def test_memory_does_not_grow_over_the_epochs(tmp_path, record_figure):
    process = Script("train.py", "trainer.max_epochs=10", "trainer.limit_train_batches=100", cwd=tmp_path)
    megabytes = [process.resident_megabytes() for line in process.lines() if " train/loss " in line]
    assert process.returncode == 0, process.stderr
    assert len(megabytes) == 10
    record_figure(f"memory after the 2nd and the 10th epoch: {megabytes[1]:.0f} and {megabytes[9]:.0f} MB")
    assert megabytes[9] - megabytes[1] < 10

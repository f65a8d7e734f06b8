import json

import pytest

from quadrant_lstm.run.evaluate import evaluate
from tests.conftest import run_folder, script


def test_a_sweep_over_several_processes_is_refused_before_it_starts_any(tmp_path):
    done = script(
        "train.py", "-m", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "seed=1,2", cwd=tmp_path
    )
    assert done.returncode == 2
    assert "trainer.devices: 2, but a sweep's jobs take one; leave out -m." in done.stderr
    assert "epoch" not in done.stdout


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_count_each_of_the_10000_test_images_once(processes, tmp_path):
    done = script(
        "train.py", "trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={processes}", "trainer.max_epochs=1",
        "trainer.limit_train_batches=2", "trainer.limit_val_batches=2", "data.batch_size=32", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = run_folder(tmp_path)
    results = json.loads((run / "results.json").read_text())
    assert results["test/images"] == 10000
    alone = evaluate(run, "cpu")
    assert alone["test/accuracy"] == results["test/accuracy"]
    assert alone["test/loss"] == pytest.approx(results["test/loss"], abs=1e-6)
    assert done.stdout.count("epoch 1/1") == 1, "each process speaks"

import torch

from quadrant_lstm.run.checkpoint import read_checkpoint
from quadrant_lstm.run.ema import EMA
from tests.conftest import TINY, run_folder, write_idx_folder
from tests.scripts import script


def test_the_average_forgets_its_start_soon_and_then_slowly():
    averages, ema, by_hand = [torch.zeros(3)], EMA(0.99), 0.0
    for step in range(1, 1200):
        ema.average(averages, [torch.full((3,), float(step))], step)
        decay = min(0.99, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * step
    torch.testing.assert_close(averages[0], torch.full((3,), by_hand))
    assert 1199 - averages[0][0] < 101  # a memory of 1 / (1 - decay) steps


def test_what_is_no_average_is_copied():
    indices = [torch.arange(5)]
    EMA(0.999).average(indices, [torch.arange(5)], 100)
    assert indices[0].tolist() == [0, 1, 2, 3, 4]


def test_the_average_is_what_is_saved_and_tested(tmp_path):
    data = ("data=idx", f"data.root={write_idx_folder(tmp_path / 'tiny')}")
    done = script("train.py", *data, *TINY, "ema_decay=0.9", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = run_folder(tmp_path)
    last = read_checkpoint(run / "checkpoints/last.ckpt")
    weights, current = last["state_dict"], last["current_model_state"]
    assert any((weights[name] != current[name]).any() for name in current)
    tested = script("evaluate.py", f"run={run}", cwd=tmp_path)
    results = [line for line in (run / "results.json").read_text().splitlines() if "test/" in line]
    for line in results:
        name, value = line.strip(" ,").replace('"', "").split(": ")
        assert f"{name:20}  {value}" in tested.stdout

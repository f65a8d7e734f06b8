"""Tests train.py init=: a run that begins with the weights of another."""

import json
import shutil

import pytest
import torch
from torch import nn

from quadrant_lstm import load_run
from quadrant_lstm.callbacks.checkpoints import write_checkpoint
from quadrant_lstm.config.check import read_config
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import csv_text, write_json
from quadrant_lstm.model.encoder import Standardize
from quadrant_lstm.run.build import build_data
from quadrant_lstm.run.load import check_init, copy_weights
from quadrant_lstm.run_folder import CONFIG, read_results
from tests.folders import TINY, run_folder
from tests.scripts import succeeds
from tests.series import series_in, write_series_folder


@pytest.fixture
def network(finished_run):
    """Has the trained network's sizes but other weights, and a last layer for one more class."""
    network, _ = load_run(finished_run)
    for parameter in network.parameters():
        nn.init.constant_(parameter, 7.0)
    network.head = nn.Linear(network.head.in_features, network.head.out_features + 1)
    network.more = nn.Linear(2, 2, bias=False)
    return network


def test_weights_that_fit_are_copied_and_the_others_are_named(finished_run, network, caplog):
    caplog.set_level("INFO", "quadrant_lstm")
    trained, before = load_run(finished_run)[0].state_dict(), network.state_dict()["head.weight"].clone()
    copy_weights(network, str(finished_run))
    state = network.state_dict()
    others = {"head.weight", "head.bias", "more.weight"}
    assert all(torch.equal(state[name], trained[name]) for name in state.keys() - others)
    assert torch.equal(state["head.weight"], before)
    first, *rest = caplog.messages
    assert first.startswith(f"init: copied {len(state) - 3} of {len(state)} tensors from {finished_run}")
    units = network.head.in_features
    assert sorted(rest) == [
        "init: head.bias [4] keeps its initial values; the file has [3]",
        f"init: head.weight [4, {units}] keeps its initial values; the file has [3, {units}]",
        "init: more.weight [2, 2] keeps its initial values; the file has none",
    ]
    del network.head
    copy_weights(network, str(finished_run))
    assert "init: head.bias [3] of the file is not in this network" in caplog.messages


def test_a_safetensors_file_holds_the_same_weights(finished_run, exported, network):
    pytest.importorskip("safetensors")
    copy_weights(network, str(exported("safetensors")))
    trained, _ = load_run(finished_run)
    assert torch.equal(network.dense.weight, trained.dense.weight)


def test_a_run_begins_with_the_weights_of_another_and_ties_go_to_the_later_epoch(finished_run, tmp_path):
    data = ("data=idx", f"data.root={finished_run.parents[2] / 'tiny'}")
    constant = ("optimizer.lr=1e-12", "trainer.max_epochs=2")
    succeeds("train.py", *data, *TINY, f"init={finished_run}", "seed=5", *constant, cwd=tmp_path)
    found, expected = (read_results(folder) for folder in (run_folder(tmp_path), finished_run))
    assert found["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-6)
    assert found["best_epoch"] == 2


def numbered_network():
    """Has weights, and an integer as batch normalization does."""
    network = nn.Linear(2, 2, bias=False)
    network.register_buffer("count", torch.tensor(3))
    return network


def save(folder, metadata=None, **tensors):
    pytest.importorskip("safetensors.torch").save_file(tensors, folder / "x.safetensors", metadata)
    return str(folder / "x.safetensors")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_copied(dtype, tmp_path):
    network, weight = numbered_network(), torch.tensor([[0.5, 1], [-2, 4]], dtype=dtype)
    copy_weights(network, save(tmp_path, weight=weight, count=torch.tensor(9)))
    assert (network.weight.tolist(), network.count) == (weight.tolist(), 9)


FINITE, NOT_FINITE = torch.ones(2, 2), "weight has values that are NaN, infinite or too large for float32; give tho"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": FINITE.to(torch.int64)}, "weight is int64, but float32 in this network; save it in that type"),
        ({"weight": FINITE.to(torch.float8_e4m3fn)}, "weight is float8_e4m3fn, but float32 in this network"),
        ({"weight": FINITE, "count": torch.tensor(2.5)}, "count is float32, but int64 in this network"),
        ({"weight": FINITE * torch.nan}, NOT_FINITE),
        ({"weight": FINITE.double() * 1e300}, NOT_FINITE),  # in float32
    ],
)
def test_values_that_are_no_weights_are_refused(tensors, message, tmp_path):
    network = numbered_network()
    before = network.weight.clone()
    with pytest.raises(UserError, match=rf"^init: .*x\.safetensors: {message}"):
        copy_weights(network, save(tmp_path, **tensors))
    assert torch.equal(network.weight, before)


def test_weights_for_columns_in_another_order_are_refused_and_for_others_named(tmp_path, caplog):
    spec = {"frame_shape": [2], "num_steps": 1, "class_names": ["0", "1"], "feature_names": ["pressure", "speed"]}
    state = {"network.weight": torch.ones(2, 2)}
    write_checkpoint({"state_dict": state, "hyper_parameters": spec}, tmp_path / "x.ckpt")
    network = nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"x\.ckpt reads pressure, speed, but the columns of these series are speed"):
        copy_weights(network, str(tmp_path / "x.ckpt"), ("speed", "pressure"))
    copy_weights(network, str(tmp_path / "x.ckpt"), ("pressure", "speed"))
    assert torch.equal(network.weight, torch.ones(2, 2))
    assert "standardized" not in caplog.text
    copy_weights(network, str(tmp_path / "x.ckpt"), ("pressure", "heat"))
    assert "reads pressure, speed, but the columns of these series are pressure, heat; they are stand" in caplog.text
    reading = {"reading": json.dumps({"feature_names": ["pressure", "speed"]})}
    file = save(tmp_path, reading, weight=torch.ones(2, 2))
    line = r"x\.safetensors reads pressure, speed, but the columns of these series are sp"
    with pytest.raises(UserError, match=line):
        copy_weights(network, file, ("speed", "pressure"))


def test_files_without_weights_of_the_network_are_refused(finished_run, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    for init, message in {
        str(tmp_path / "x.safetensors"): r"^init: .*x\.safetensors cannot be read .*; export it again",
        str(finished_run): "has no weight whose name and shape this network has; choose its model",
    }.items():
        with pytest.raises(UserError, match=message):
            copy_weights(nn.Linear(1, 1), init)


def test_what_a_run_was_trained_on_is_not_for_the_test_of_another(tmp_path, caplog):
    root = write_series_folder(tmp_path / "data", halves=(".",))
    old = series_in(root)
    (tmp_path / "old/checkpoints").mkdir(parents=True)
    for name in ("checkpoints/best.ckpt", "network.safetensors"):
        (tmp_path / "old" / name).touch()
    (tmp_path / "old/series.csv").write_text(csv_text(list(old.table[0]), old.table))
    check_init(old, str(tmp_path / "old"))
    others = [series_in(root, validation_seed=seed) for seed in range(1, 9)]
    trained = {row["path"] for row in old.table if row["split"] == "training"}
    leaks = [{row["path"] for row in other.table if row["split"] != "training"} & trained for other in others]
    assert any(leaks)
    for other, leaked in zip(others, leaks, strict=True):
        if leaked:
            for init in (tmp_path / "old", tmp_path / "old/network.safetensors"):
                line = r"^init: .*\.npy is for .* now, but .*old was trained on it; write the"
                with pytest.raises(UserError, match=line):
                    check_init(other, str(init))
    write_json(tmp_path / "old/provenance.json", {"data": {"root": "data"}})
    ends = series_in(root, test_end=0.5)
    check_init(ends, str(tmp_path / "old"), "elsewhere")
    line = r"^init: the end of .*\.npy is for the test now, but .* another part of it; wr"
    with pytest.raises(UserError, match=line):
        check_init(ends, str(tmp_path / "old"), "data")
    caplog.set_level("INFO")
    shutil.copy(tmp_path / "old/checkpoints/best.ckpt", tmp_path / "copy.ckpt")
    assert not caplog.messages
    check_init(ends, str(tmp_path / "copy.ckpt"))
    assert caplog.messages == [
        f"init: {tmp_path}/copy.ckpt is in no run folder, so it is not known which samples it was trained on"
    ]


def test_images_that_a_run_was_trained_on_are_not_for_the_validation_of_another(finished_run):
    data = build_data(read_config(finished_run / CONFIG))
    check_init(data, str(finished_run))
    data.validation_indices = data.validation_indices + 1
    with pytest.raises(UserError, match="^init: .* was trained on images that are for validation now; write the val"):
        check_init(data, str(finished_run))
    data.validation_indices = data.validation_indices[:0]
    check_init(data, str(finished_run))


def test_statistics_and_classes_of_other_data_are_named(tmp_path, caplog):
    spec = {"frame_shape": [2], "num_steps": 1, "class_names": ["north", "south"]}
    network = Standardize((2,))
    state = {"network.mean": torch.tensor([0.0, 5.0]), "network.deviation": torch.tensor([1.0, 2.0])}
    write_checkpoint({"state_dict": state, "hyper_parameters": spec}, tmp_path / "x.ckpt")
    network.set(torch.tensor([0.5, 6.0]), torch.tensor([2.0, 1.5]))
    copy_weights(network, str(tmp_path / "x.ckpt"), classes=("north", "south"))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    network.set(torch.tensor([0.5, 5000.0]), torch.tensor([2.0, 2000.0]))
    copy_weights(network, str(tmp_path / "x.ckpt"), classes=("a_down", "b_up"))
    assert "tells north, south, but the classes here are a_down, b_up; its last layer is copied in th" in caplog.text
    rule = "init: of feature 2, the mean is 5000 and the deviation 2000 here, but 5 and the deviation 2 in"
    assert rule in caplog.text

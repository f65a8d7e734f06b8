"""Tests how the parts of a run are built: warnings, the precision, networks on any grid."""

import numpy as np
import pytest
import torch
from torch import nn

from quadrant_lstm.config.check import check_values
from quadrant_lstm.data.orderings import SequenceSpec, numbered_names
from quadrant_lstm.errors import UserError
from quadrant_lstm.run import build
from tests.configs import composed_config
from tests.folders import write_idx, write_idx_folder
from tests.series import write_series_folder


@pytest.mark.parametrize(
    ("precision", "accelerator", "instructions", "chosen"),
    [
        ("auto", "gpu", ["amx_bf16"], "32-true"),
        ("auto", "cpu", ["avx512_bf16"], "bf16-mixed"),
        ("auto", "cpu", [], "32-true"),
        ("16-mixed", "cpu", ["avx512_bf16"], "16-mixed"),
    ],
)
def test_auto_is_bf16_on_a_cpu_that_multiplies_bf16(precision, accelerator, instructions, chosen, monkeypatch):
    monkeypatch.setattr(build, "bf16_instructions", lambda: instructions)
    assert build.resolve_precision(precision, accelerator) == chosen


def test_the_mean_weight_of_a_training_sample_is_1_and_each_class_weighs_the_same(tmp_path):
    root = write_idx_folder(tmp_path, train=9, test=3)
    write_idx(root / "train-labels-idx1-ubyte", np.array([0, 0, 0, 0, 0, 0, 1, 1, 2]))
    words = ("data=idx", f"data.root={root}", "data.fold=0", "data.num_folds=3", "model.filters=[2]")
    cfg = composed_config(*words, "class_weights=balanced")
    data = build.build_data(cfg)
    weights = build.build_classifier(cfg, data.spec, data.class_counts()).class_weights
    labels = data.train.tensors[1][data.train_indices].tolist()
    counts = [labels.count(number) for number in range(3)]
    assert len(labels) == 6 and len(set(counts) - {0}) > 1
    for weight, count in zip(weights.tolist(), counts, strict=True):
        assert not count or weight == pytest.approx(6 / (3 - counts.count(0)) / count)
    assert build.build_classifier(composed_config(*words), data.spec, data.class_counts()).class_weights is None


def test_a_share_beside_given_splits_is_refused(tmp_path):
    root = write_series_folder(tmp_path, halves=("train", "val", "test"))
    cfg = composed_config("data=series", f"data.root={root}", "model=join", "model/encoder=none")
    build.check_fit(cfg, ["data.fold=0"])
    for key in ("data.test_share", "data.validation_share"):
        with pytest.raises(UserError, match=f"{key}: 0.1, but the data say which samples these are; leave"):
            build.check_fit(cfg, [f"{key}=0.1"])


@pytest.mark.parametrize(
    "model",
    [
        ("model=cnn_lstm", "model.kernel_size=2", "model.filters=[3,4]"),
        ("model=cnn_lstm", "model.kernel_size=2", "model.filters=[3]", "model/recurrent=concat"),
        ("model=deep", "model.blocks=[[4],[6]]"),
        ("model=reshaped", "model.kernel_size=2", "model.filters=[3]"),
        ("model=join", "model/encoder=pooled", "model.encoder.grid=[2,3]", "model.differences=true"),
        ("model=join", "model/encoder=rows", "model/recurrent=bilstm"),
        ("model=join", "model/recurrent=conv_lstm", "model.encoder.kernel_size=2", "model.encoder.filters=[3]"),
    ],
    ids=" ".join,
)
def test_every_network_reads_any_grid(model):
    for grid, orderings, frame in (
        ((4, 4), "[rows,snake,spiral]", (1, 21, 7)),
        ((7, 4), '["random:1"]', (1, 4, 7)),
        ((1, 2), "[rows]", (1, 28, 14)),
    ):
        cfg = composed_config(*model, f"data.grid={list(grid)}", f"data.orderings={orderings}")
        check_values(cfg)
        steps = grid[0] * grid[1]
        network = build.build_network(cfg, SequenceSpec(frame, steps, numbered_names(10))).eval()
        assert network(torch.rand(2, steps, *frame)).shape == (2, 10)


@pytest.mark.parametrize("model", ["cnn_lstm", "deep", "join"])
def test_the_units_of_a_layer_may_be_typed_and_may_be_in_a_file_of_its_own(model, tmp_path):
    """The class of that file calls its number of units as the key is called."""
    (tmp_path / "model/recurrent").mkdir(parents=True)
    own = "_target_: tests.run.test_build.OwnLayer\n_partial_: true\nunits: 7\n"
    (tmp_path / "model/recurrent/own.yaml").write_text(own)
    spec = SequenceSpec((1, 56, 14), 4, numbered_names(10))
    for overrides, units in (
        (["model.recurrent.units=64"], 64),
        (["model/recurrent=own"], 7),
        (["model/recurrent=own", "model.recurrent.units=9"], 9),
    ):
        cfg = composed_config(f"model={model}", f"hydra.searchpath=[file://{tmp_path}]", *overrides)
        check_values(cfg)
        assert build.build_network(cfg, spec).recurrent.hidden_size == units


class OwnLayer(nn.GRU):
    def __init__(self, num_features, units):
        super().__init__(num_features, units, batch_first=True)

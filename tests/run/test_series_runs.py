"""Runs on series, from training to an exported program."""

import itertools
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quadrant_lstm.errors import UserError
from quadrant_lstm.files import csv_text, read_csv
from quadrant_lstm.model.encoder import Conv1dEncoder, ConvEncoder, LinearEncoder, NoEncoder, Standardize
from quadrant_lstm.model.network import Join
from quadrant_lstm.model.protocols import logits_after_steps
from quadrant_lstm.run.build import build_classifier, build_data
from quadrant_lstm.run.load import check_same_data, evaluate, load_run
from quadrant_lstm.run.predict import load_predictor, predict_files
from quadrant_lstm.run.predictor import predictor_of_onnx
from quadrant_lstm.run_folder import read_results
from quadrant_lstm.text import measured_steps
from tests.configs import composed_config
from tests.folders import assert_same_weights, checkpoint_of, run_folder, sweep_folder
from tests.networks import RECURRENT, Pooled, join
from tests.scripts import refused, succeeds, train_with_a_kill, trained_once
from tests.series import noise_series, series_in, write_series_folder, write_table

LEAN = ("trainer.max_epochs=2", "data.batch_size=3", "model.lstm_units=4", "~trainer.callbacks.dashboard")
WINDOWS = ("data.window=4", "data.stride=2", "data.num_frames=3")
KINDS = {
    "values": ("model/encoder=none", "data.num_frames=4", "data.test_windows=2", "data.missing=last"),
    "windows": ("model/encoder=conv1d", "model.encoder.filters=[4]", *WINDOWS),
}


def words(root: Path, kind: str = "values") -> tuple[str, ...]:
    return ("data=series", f"data.root={root}", "model=join", "model/recurrent=gru", *KINDS[kind], *LEAN)


@pytest.fixture(scope="session")
def runs(shared_folder):
    """Returns a function that returns the folder of a run of two epochs. One series is a table of named features."""

    def run(kind: str) -> Path:
        def prepare(cwd: Path) -> tuple[str, ...]:
            root = write_series_folder(cwd / "data", num_values=[4, 9, 6])
            first = root / "train/down/0.npy"
            write_table(first.with_suffix(".csv"), np.load(first), ["x", "y", "z"])
            first.unlink()
            return words(root, kind)

        return trained_once(shared_folder / f"series_{kind}", prepare)

    return run


def statistics_of(run: Path) -> dict[str, torch.Tensor]:
    weights = checkpoint_of(run)["state_dict"]
    return {name.rpartition(".")[2]: weights[name].flatten() for name in weights if "standardize" in name}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stores_the_statistics_of_its_training_data(kind, runs):
    run = runs(kind)
    mean, deviation = series_in(run.parents[2] / "data", validation_share=0.1).statistics
    torch.testing.assert_close(statistics_of(run), {"mean": mean, "deviation": deviation}, rtol=0, atol=0)
    assert [row["split"] for row in read_csv(run / "series.csv")].count("test") == read_results(run)["test/images"] == 8
    assert json.loads((run / "provenance.json").read_text())["data"]["dataset"] == "series"


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_tested_again_and_predicts_files_as_it_was_tested(kind, runs, predictions_of):
    run = runs(kind)
    assert evaluate(run, "cpu")["test/accuracy"] == read_results(run)["test/accuracy"]
    tested, files = predictions_of(run), predictions_of(run, run.parents[2] / "data/test")
    for one, other in zip(tested, files, strict=True):
        assert (one["file"], one["prediction"]) == (other["file"], other["prediction"])
        assert float(one["up"]) == pytest.approx(float(other["up"]), abs=1e-6)
    assert sum(row["class"] == row["prediction"] for row in tested) / 8 == read_results(run)["test/accuracy"]


@pytest.mark.parametrize("kind", KINDS)
def test_files_and_arrays_are_predicted_alike(kind, runs, tmp_path):
    run = runs(kind)
    files = sorted((run.parents[2] / "data/test").glob("*/*.npy"))
    predictor = load_predictor(run)
    by_file, by_array = predictor(files), predictor([np.load(file).astype(np.float64) for file in files])
    assert [each.steps for each in by_file] == [each.steps for each in by_array]
    predict_files(predictor.predictor, files, None, str(tmp_path / "run.jsonl"))
    written = [json.loads(line)["probabilities"] for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert written == [each.steps for each in by_file]
    long = predictor(np.repeat(np.load(files[0]), 9, axis=0))
    assert re.fullmatch(r"only \d+ of \d+ steps were read", long.note)


@pytest.mark.parametrize("kind", ["windows", pytest.param("values", marks=pytest.mark.reliability)])
def test_a_run_and_its_program_predict_the_same(kind, runs, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    run = runs(kind)
    files = sorted((run.parents[2] / "data/test").glob("*/*.npy"))
    succeeds("export.py", f"run={run}", "format=onnx", f"output={tmp_path}/x.onnx", cwd=tmp_path)
    program = predictor_of_onnx(f"{tmp_path}/x.onnx")
    assert [path.name for path in program.find(str(files[0].parent))] == ["0.npy", "1.npy", "2.npy", "3.npy"]
    predict_files(program, files, None, str(tmp_path / "program.jsonl"))
    lines = (tmp_path / "program.jsonl").read_text().splitlines()
    for line, expected in zip(lines, load_predictor(run)(files), strict=True):
        assert np.allclose(json.loads(line)["probabilities"][-1], expected.probabilities, atol=1e-4)
    metadata = onnxruntime.InferenceSession(f"{tmp_path}/x.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(metadata["reading"])["features"] == 3
    assert metadata["series"].endswith("not standardized, which the network does")
    write_table(tmp_path / "x.csv", noise_series(6), ["y", "x", "z"])
    for read in (lambda file: next(program.read(file)), load_predictor(run)):
        with pytest.raises(UserError, match=r"x.csv: cannot be read .* \(its columns are y, x, z, not x, y, z"):
            read(tmp_path / "x.csv")


def test_other_arrays_and_files_are_refused(runs, tmp_path):
    predictor = load_predictor(runs("windows"))
    for array, line in (
        (noise_series(6, 2), r"array: is \[6, 2\], \[time, features\], but the network reads 3 features, in windows"),
        (noise_series(3), r"the array: is \[3, 3\], .* in windows of 4 times; give such a series"),
        (np.full((6, 3), np.nan), "value 1 of feature 1 is missing"),
    ):
        with pytest.raises(ValueError, match=line):
            predictor(array)
    np.save(tmp_path / "x.npy", noise_series(3))
    with pytest.raises(UserError, match=r"x.npy: is \[3, 3\], \[time, features\], but the network reads"):
        predictor(tmp_path / "x.npy")
    with pytest.raises(UserError, match="invert: is for images, but this network reads series; leave it out"):
        predictor(tmp_path / "x.npy", invert=True)
    assert load_predictor(runs("values"))(np.array([[1, np.nan, 2], [1, 2, 2]])).label in ("down", "up")


def test_a_loaded_network_reads_values_of_any_range(runs):
    network, _ = load_run(runs("values"))
    logits = network(100 * torch.randn(2, 7, 3), lengths=torch.tensor([7, 2]))
    assert logits.shape == (2, 2)
    with pytest.raises(ValueError, match=r"frames are \[2, 7, 1, 3\], but this network reads \[batch, steps, 3\]"):
        network(torch.randn(2, 7, 1, 3))
    with pytest.raises(ValueError, match="frames are torch.int64; give floats, such as frames.float()"):
        network(torch.ones(2, 7, 3, dtype=torch.int64))


def test_a_killed_run_resumes_exactly(runs, tmp_path):
    root = runs("values").parents[2] / "data"
    assert_same_weights(train_with_a_kill(*words(root), cwd=tmp_path), runs("values"))


def test_a_series_whose_end_was_for_the_test_may_not_grow(tmp_path):
    root = write_series_folder(tmp_path / "data", halves=["."], num_values=[8])
    data = series_in(root, test_end=0.25, validation_share=0.0)
    (tmp_path / "series.csv").write_text(csv_text(list(data.table[0]), data.table))
    check_same_data(data, data.spec, tmp_path)
    np.save(root / "up/1.npy", noise_series(12))
    with pytest.raises(UserError, match="up/1.npy has changed, so that its end for the test begins elsewhere; restore"):
        check_same_data(series_in(root, test_end=0.25, validation_share=0.0), data.spec, tmp_path)


def test_two_processes_have_the_same_statistics_as_one(runs, tmp_path):
    root = runs("values").parents[2] / "data"
    succeeds("train.py", *words(root), "trainer.devices=2", "trainer.accelerator=cpu", cwd=tmp_path)
    run = run_folder(tmp_path)
    torch.testing.assert_close(statistics_of(run), statistics_of(runs("values")), rtol=0, atol=0)
    assert read_results(run)["test/images"] == 8


def test_the_dashboard_draws_curves(tmp_path):
    root = write_series_folder(tmp_path / "data", num_values=[4, 20])
    changes = ("model/recurrent=lstm", "trainer.max_epochs=1", "data.num_frames=null", "data.stride=1")
    succeeds("train.py", *words(root, "windows")[:-1], *changes, cwd=tmp_path)
    run = run_folder(tmp_path)
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    tags = {tag.removeprefix("view_") for tag in events.Tags()["images"]}
    assert {"data/series", "belief/example_1", "test/occluded_step", "test/mistakes", "inside/gates"} <= tags
    assert "A colour is a feature" in (run / "report.html").read_text()


def test_a_precision_that_would_round_raw_values_is_refused(tmp_path):
    cfg = composed_config(*words(write_series_folder(tmp_path)), "trainer.precision=bf16-true")
    with pytest.raises(UserError, match=r"^trainer\.precision: bf16-true would round series .*; write bf16-mixed"):
        build_classifier(cfg, build_data(cfg).spec)


def test_long_sequences_have_accuracies_after_128_of_their_steps():
    assert measured_steps(128) == list(range(1, 129))
    steps = measured_steps(361)
    assert len(steps) == len(set(steps)) == 128
    assert steps[-1] == 361


def standardizing(encoder, recurrent, frame_shape) -> Join:
    network = join(recurrent, encoder, frame_shape, units=16)  # a transformer as large has several units
    for part in network.modules():
        if isinstance(part, Standardize):
            part.set(torch.tensor([5.0, 4.0]), torch.tensor([2.0, 2.5]))
    return network


ENCODERS = {
    "of clips": (Pooled, (1, 6, 6)),
    "none": (NoEncoder, (2,)),
    "none of windows": (NoEncoder, (2, 6)),
    "linear": (partial(LinearEncoder, units=4), (2, 6)),
    "conv1d": (partial(Conv1dEncoder, filters=[3, 4], kernel_size=2, pool_size=2), (2, 6)),
    "conv1d over all": (partial(Conv1dEncoder, filters=[3], kernel_size=3, pool_size=None), (2, 6)),
}
ALL = list(itertools.product(ENCODERS, RECURRENT))


@pytest.mark.parametrize(("encoder", "recurrent"), [(e, r) for e, r in ALL if e == "of clips" or r != "conv_lstm"])
def test_a_padded_sequence_has_the_logits_of_the_sequence_alone(encoder, recurrent):
    make, frame_shape = ENCODERS[encoder]
    network, sequences = standardizing(make, recurrent, frame_shape), 5 + 2 * torch.randn(3, 5, *frame_shape)
    lengths = torch.tensor([5, 2, 4])
    with torch.no_grad():
        logits = network(sequences, lengths=lengths)
        steps = logits_after_steps(network, sequences, lengths)
        assert (logits.std(0) > 1e-3).all()  # they depend on the sequences
        assert torch.allclose(steps[:, -1], logits, rtol=1e-6, atol=1e-6)
        for number, length in enumerate(lengths if recurrent != "concat" else []):  # reads padding as zeros
            alone = logits_after_steps(network, sequences[number : number + 1, :length])
            assert torch.allclose(alone[0, -1], logits[number], rtol=1e-6, atol=1e-6)
            if steps.shape[1] > 1:
                assert torch.allclose(steps[number, :length], alone[0], rtol=1e-6, atol=1e-6)
                assert torch.allclose(steps[number, length:], steps[number, length - 1], rtol=1e-6, atol=1e-6)


def test_the_network_standardizes_before_the_encoder():
    network, values = standardizing(NoEncoder, "gru", (2,)), 5 + 2 * torch.randn(3, 5, 2)
    expected = (values - torch.tensor([5.0, 4.0])) / torch.tensor([2.0, 2.5])
    assert torch.allclose(network.features(values), expected)


def test_a_convolution_over_windows_is_that_of_each_window_alone():
    encoder = Conv1dEncoder(2, [3], 4, None)
    windows = torch.randn(7, 2, 6)
    slow = torch.stack([encoder.conv1(window).amax(1).relu() for window in windows])
    assert torch.allclose(encoder(windows), slow)


@pytest.mark.parametrize(
    ("encoder", "frame_shape", "line"),
    [(Conv1dEncoder, (2,), "Conv1dEncoder reads windows .* but these data have vectors .*; write data.window=N"),
     (Conv1dEncoder, (1, 8, 8), "Conv1dEncoder reads windows .* have frames .*, or model/encoder=conv for images"),
     (Conv1dEncoder, (2, 4), "model.encoder.kernel_size: 3 does not fit stage conv2, whose input is 2 x 2"),
     (ConvEncoder, (2, 9), "reads frames .*; write model=join model/encoder=none, linear or, with data.window, conv")],
)  # fmt: skip
def test_an_encoder_of_other_frames_is_refused(encoder, frame_shape, line):
    with pytest.raises(UserError, match=line):
        join("gru", partial(encoder, filters=[2, 2], kernel_size=3, pool_size=2), frame_shape)


@pytest.mark.parametrize("model", ["cnn_lstm", "reshaped", "deep"])
def test_networks_of_images_refuse_series_in_one_line(model, tmp_path):
    cfg = composed_config("data=series", f"data.root={write_series_folder(tmp_path)}", f"model={model}")
    data = build_data(cfg)
    with pytest.raises(UserError, match="^model: .*model=join"):
        build_classifier(cfg, data.spec)


def test_a_job_with_a_share_beside_given_splits_fails(tmp_path):
    root = write_series_folder(tmp_path / "data")
    line = refused("train.py", "-m", *words(root), "data.test_share=0.1", "seed=1", cwd=tmp_path)
    assert "data.test_share: 0.1, but the data say which samples these are; leave it out" in line


def test_a_sweep_over_test_folds_tests_each_series_once_and_needs_no_validation(tmp_path):
    write_series_folder(tmp_path / "data", per_class=3, halves=["."])
    options = ("data.num_folds=3", "data.test_fold=0,1,2", "data.validation_share=0", "trainer.max_epochs=1")
    done = succeeds("train.py", "-m", *words(tmp_path / "data"), *options, cwd=tmp_path)
    assert "best           all jobs  test accuracy " in done.stdout
    sweep = sweep_folder(tmp_path)
    tables = [read_csv(table) for table in sorted(sweep.glob("[0-2]/series.csv"))]
    tested = [row["path"] for table in tables for row in table if row["split"] == "test"]
    assert len(tested) == len(set(tested)) == 6
    assert not re.search("None|ranked", (sweep / "sweep.html").read_text())

"""Tests evaluate.py, export.py and load_run on a finished run."""

import collections
import io
import json
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch

from quadrant_lstm import load_run, sequences
from quadrant_lstm.data.orderings import SequenceSpec, orderings_of
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.deep import DeepCNNLSTM
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.run.build import num_processes_to_launch
from quadrant_lstm.run.drawing_page import drawing_page
from quadrant_lstm.run.export import export, metadata_of
from quadrant_lstm.run.exported_program import cut_images, inputs_of, program_file
from quadrant_lstm.run.load import evaluate, load_classifier
from quadrant_lstm.run_folder import BEST, read_results
from tests.configs import composed_config
from tests.scripts import script, succeeds


def test_evaluate_reproduces_the_results_exactly(finished_run):
    done = succeeds("evaluate.py", "run=latest", cwd=finished_run.parents[2])
    results = read_results(finished_run)
    for name in ("test/accuracy", "test/loss", "test/images"):
        assert f"{name:22}  {results[name]}\n" in done.stdout


def test_load_run_returns_the_network_that_was_tested(finished_run, tiny):
    network, cfg = load_run(finished_run)
    images = torch.from_numpy(tiny.test_images)
    with torch.inference_mode():
        frames = sequences(images, cfg.data.orderings)
        logits = network(frames)
        assert torch.equal(logits, network(frames.float() / 255))
        assert torch.equal(logits, network(frames=frames))
        torch.testing.assert_close(logits, network.logits_per_step(frames)[:, -1])
        divide, finite = "give them as uint8, or divide", "replace the values that are no numbers"
        wrong = {frames.float(): divide, frames.float() / 255 - 0.5: divide, frames * torch.nan: finite}
        for inputs, remedy in wrong.items():
            for call in (network, lambda inputs: network(frames=inputs), network.logits_per_step):
                with pytest.raises(ValueError, match=f"pixels are floats from .*; {remedy}"):
                    call(inputs)
        for inputs in (images, frames[:, :3], frames.transpose(0, 1)):
            with pytest.raises(ValueError, match="frames are .*, but this network reads .batch, 4, 1, "):
                network(inputs)
        with pytest.raises(ValueError, match="frames are a ndarray; give a tensor"):
            network(frames.numpy())
        others = torch.rand(frames.shape)
        for call in (network, network.logits_per_step):
            with pytest.raises(ValueError, match=r"each, which this network encodes only once; cut .*in_full\(\) for"):
                call(others)
        assert network.in_full()(others).shape == logits.shape
        with pytest.raises(ValueError, match="images are .70, 8, 8., but .batch, channels, height, width. is"):
            sequences(images[:, 0])
    assert (logits.argmax(1).numpy() == tiny.test_labels).mean() == read_results(finished_run)["test/accuracy"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_an_accelerator_that_is_missing_is_reported_in_one_line(finished_run):
    for key, use in {
        "accelerator": lambda: evaluate(finished_run, "gpu"),
        "trainer": lambda: num_processes_to_launch(composed_config("trainer.accelerator=gpu")),
    }.items():
        with pytest.raises(UserError, match=f"^{key}: No supported gpu backend found; change a value of {key}.$"):
            use()


def compute_by_onnxruntime(file):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(file))
    assert session.get_inputs()[0].shape[0] == session.get_outputs()[0].shape[0] == "batch"
    metadata = session.get_modelmeta().custom_metadata_map
    return metadata, lambda images: session.run(["probabilities"], {"images": images.numpy()})[0]


def compute_by_torch(file):
    metadata = {"metadata.json": ""}
    program = torch.export.load(file, extra_files=metadata).module()
    return json.loads(metadata["metadata.json"]), lambda images: program(images).detach().numpy()


@pytest.mark.parametrize(("format", "load"), [("onnx", compute_by_onnxruntime), ("torch", compute_by_torch)])
def test_a_program_returns_the_probabilities_of_the_network(format, load, exported, finished_run, tiny):
    metadata, compute = load(exported(format))
    network, cfg = load_run(finished_run)
    for count in (1, 33):  # the export was made with 7
        images = torch.from_numpy(tiny.test_images[:count]) / 255
        expected = network(sequences(images, cfg.data.orderings)).softmax(1).detach()
        assert np.allclose(compute(images), expected, atol=1e-5)
    assert float(metadata["test_accuracy"]) == read_results(finished_run)["test/accuracy"]
    assert metadata["data_sha256"] == tiny.sha256()
    assert json.loads(metadata["orderings"]) == [list(ordering) for ordering in cfg.data.orderings]
    assert (metadata["classes"], metadata["images"]) == ("3", "float32 [batch, 1, 8, 8], pixels divided by 255")


def test_the_accuracy_of_other_orderings_is_not_that_of_a_program(finished_run):
    network, cfg = load_run(finished_run)
    spec = SequenceSpec((1, 16, 4), 4, ("0", "1", "2"))
    inputs = inputs_of(cfg.data, spec)
    assert metadata_of(finished_run, cfg, inputs, spec)["test_accuracy"]
    assert "test images correctly" in drawing_page(network, spec, cfg, finished_run, "float32")
    cfg.data.test_orderings = [[2, 1, 3, 4], *cfg.data.orderings[1:]]
    assert metadata_of(finished_run, cfg, inputs, spec)["test_accuracy"] == ""
    assert "test images correctly" not in drawing_page(network, spec, cfg, finished_run, "float32")
    cfg.data.train_orderings = [[2, 1, 3, 4], *cfg.data.orderings]
    assert metadata_of(finished_run, cfg, inputs, spec)["test_accuracy"] == ""


def test_a_program_cuts_its_images_on_the_grid_of_the_run():
    orderings, grid = ["snake", "reversed-columns"], (4, 2)
    network = DeepCNNLSTM((1, 12, 12), 3, orderings_of(orderings, grid), grid, [[4]], LSTM, 0.0, 5, True).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = program_file("torch", network, cut_images((1, 24, 24), orderings, grid), {}).content
    program, images = torch.export.load(io.BytesIO(content)).module(), torch.rand(2, 1, 24, 24)
    expected = network(sequences(images, orderings, grid)).softmax(1)
    torch.testing.assert_close(program(images), expected, atol=1e-6, rtol=0)


def test_a_program_computes_what_frames_share_once(exported):
    """Its one convolution is applied to quadrants and to seams instead of all frames."""
    onnx = pytest.importorskip("onnx")
    counts = collections.Counter(node.op_type for node in onnx.load(exported("onnx")).graph.node)
    assert counts["Conv"] == 2


def test_without_onnxruntime_an_export_is_refused_in_one_line(finished_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="^format=onnx: needs onnxruntime, which is not installed; install it wi"):
        export(finished_run, "onnx")


def test_a_safetensors_file_contains_the_best_weights(finished_run, exported):
    weights = pytest.importorskip("safetensors.torch").load_file(exported("safetensors"))
    network, _ = load_run(finished_run)
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_a_layer_with_two_names_is_exported(finished_run, tmp_path, monkeypatch):
    load = pytest.importorskip("safetensors.torch").load_file
    classifier, cfg = load_classifier(finished_run)
    classifier.network.again = classifier.network.dense
    monkeypatch.setattr("quadrant_lstm.run.export.load_classifier", lambda *_: (classifier, cfg))
    export(finished_run, "safetensors", output=str(tmp_path / "x.safetensors"))
    weights = load(tmp_path / "x.safetensors")
    assert torch.equal(weights["again.weight"], weights["dense.weight"])


def test_a_file_is_exported_to_where_output_says(finished_run, tmp_path):
    pytest.importorskip("safetensors")
    done = succeeds("export.py", f"run={finished_run}", "format=safetensors", "output=a.safetensors", cwd=tmp_path)
    assert not done.stderr
    assert done.stdout.startswith("a.safetensors  ")
    assert (tmp_path / "a.safetensors").exists() and not (finished_run / "network.safetensors").exists()
    with pytest.raises(UserError, match=r"/b: cannot be written .*\. Fix it and rerun\."):
        export(finished_run, "safetensors", output=f"{tmp_path}/a.safetensors/b")


def test_a_run_that_has_not_finished_says_so(finished_run, tmp_path):
    run, line = shutil.copytree(finished_run, tmp_path / "run"), "epoch 3 of 3; this run has not finished"
    (run / "results.json").unlink()
    done = script("export.py", "format=html", "run=run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, f"run: {line}\n")
    assert line not in done.stdout
    assert f"{line.capitalize()}." in (run / "network.html").read_text()


def test_weights_that_are_missing_or_damaged_are_reported(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / BEST).write_bytes(b"cut")
    with pytest.raises(UserError, match="best.ckpt: cannot be read .* is damaged"):
        load_run(run)
    (run / BEST).unlink()
    with pytest.raises(UserError, match="best.ckpt: is missing: no epoch of this run has"):
        load_run(run)

"""Tests evaluate.py, export.py and load_run on a finished run."""

import collections
import json
import shutil
import warnings

import numpy as np
import pytest
import torch

from quadrant_lstm import ORDERINGS, load_run, sequences
from quadrant_lstm.data.images import load_idx_folder
from quadrant_lstm.data.orderings import QUADRANTS
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.deep import DeepCNNLSTM
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.run.export import export
from quadrant_lstm.run.exported_program import cut_images, program_file
from quadrant_lstm.run_folder import read_results
from tests.malformed import MALFORMED
from tests.scripts import Script, script, without


@pytest.fixture
def tiny(finished_run):
    return load_idx_folder(finished_run.parents[2] / "tiny")


def logits(run, images):
    network, cfg = load_run(run)
    with torch.no_grad():
        return network(sequences(torch.from_numpy(images), cfg.data.orderings).float() / 255)


def test_evaluate_reproduces_the_results_exactly(finished_run):
    done = script("evaluate.py", "run=latest", cwd=finished_run.parents[2])
    assert done.returncode == 0, done.stderr
    results = read_results(finished_run)
    for name in ("test/accuracy", "test/loss", "test/images"):
        assert f"{name:20}  {results[name]}\n" in done.stdout


def test_load_run_returns_the_network_that_was_tested(finished_run, tiny):
    predicted = logits(finished_run, tiny.test_images).argmax(1).numpy()
    results = read_results(finished_run)
    assert (predicted == tiny.test_labels).mean() == results["test/accuracy"]


def test_what_load_run_returns_reads_uint8_and_refuses_other_ranges_and_axes(finished_run, tiny):
    network, cfg = load_run(finished_run)
    images = torch.from_numpy(tiny.test_images[:3])
    with torch.inference_mode():
        frames = sequences(images, cfg.data.orderings)
        assert torch.equal(network(frames), network(frames.float() / 255))
        for wrong in (frames.float(), frames.float() / 255 - 0.5, frames * torch.nan):
            with pytest.raises(ValueError, match="pixels are floats from .*; give them as uint8, or divide"):
                network(wrong)
        with pytest.raises(ValueError, match="frames are .3, 1, 8, 8., but this network reads .batch, steps, 1, "):
            network(images)
        with pytest.raises(ValueError, match="pixels are floats from 0 to 2, but the network reads 0 to 1"):
            sequences(torch.tensor([0.0, 2.0]).expand(1, 1, 2, 2))
        with pytest.raises(ValueError, match="images are .3, 8, 8., but .batch, channels, height, width. is"):
            sequences(images[:, 0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", [("evaluate.py",), ("train.py", "-m", "seed=1,2", "plan=true")], ids=" ".join)
def test_an_accelerator_that_is_missing_is_reported_in_one_line(command, finished_run):
    name, *words = command
    words += ["trainer.accelerator=gpu"] if name == "train.py" else ["run=latest", "accelerator=gpu"]
    done = script(name, *words, cwd=finished_run.parents[2])
    assert done.returncode == 2
    assert "accelerator: No supported gpu backend found; change a value of " in (done.stdout + done.stderr).replace(
        "trainer", "accelerator"
    )
    assert done.stderr.count("\n") == 1


def compute_by_onnxruntime(file):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(file))
    assert session.get_inputs()[0].shape[0] == session.get_outputs()[0].shape[0] == "batch"
    metadata = session.get_modelmeta().custom_metadata_map
    return metadata, lambda images: session.run(["probabilities"], {"images": images})[0]


def compute_by_torch(file):
    metadata = {"metadata.json": ""}
    program = torch.export.load(file, extra_files=metadata).module()
    return json.loads(metadata["metadata.json"]), lambda images: program(torch.from_numpy(images)).detach().numpy()


@pytest.mark.parametrize(("format", "load"), [("onnx", compute_by_onnxruntime), ("torch", compute_by_torch)])
def test_a_program_returns_the_probabilities_of_the_network(format, load, exported, finished_run, tiny):
    metadata, compute = load(exported(format))
    for count in (1, 33):  # the export was made with 7
        images = tiny.test_images[:count].astype(np.float32) / 255
        expected = logits(finished_run, tiny.test_images[:count]).softmax(1).numpy()
        assert np.allclose(compute(images), expected, atol=1e-5)
    results = read_results(finished_run)
    assert float(metadata["test_accuracy"]) == results["test/accuracy"]
    assert metadata["data_sha256"] == tiny.sha256()
    assert json.loads(metadata["orderings"]) == [list(ordering) for ordering in ORDERINGS]
    assert (metadata["classes"], metadata["images"]) == ("3", "float32 [batch, 1, 8, 8], pixels divided by 255")


def test_a_program_of_a_deep_network_is_written_without_a_warning():
    network = DeepCNNLSTM((1, 24, 6), 3, ORDERINGS, QUADRANTS, [[4]], LSTM, 0.0, 5, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program_file("torch", network.eval(), cut_images((1, 12, 12), ORDERINGS, QUADRANTS), {})


def test_a_program_computes_what_frames_share_once(exported):
    """Its one convolution is applied to quadrants and to seams instead of all frames."""
    onnx = pytest.importorskip("onnx")
    counts = collections.Counter(node.op_type for node in onnx.load(exported("onnx")).graph.node)
    assert counts["Conv"] == 2


def test_without_onnxruntime_an_export_is_refused_in_one_line(finished_run):
    cwd, line = (
        finished_run.parents[2],
        "format=onnx: needs onnxruntime, which is not installed; install it with python",
    )
    done = Script("export.py", f"run={finished_run}", cwd=cwd, before=without("onnxruntime")).wait()
    assert (done.returncode, done.stderr.count("\n"), done.stderr[: len(line)]) == (2, 1, line)


def test_a_safetensors_file_contains_the_best_weights(finished_run, exported):
    safetensors = pytest.importorskip("safetensors.torch")
    weights = safetensors.load_file(exported("safetensors"))
    network, _ = load_run(finished_run)
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_a_file_is_exported_to_where_output_says(finished_run, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    done = script("export.py", f"run={finished_run}", "format=safetensors", "output=a.safetensors", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("a.safetensors  ")
    assert safetensors.load_file(tmp_path / "a.safetensors")
    assert not (finished_run / "network.safetensors").exists()
    for output, line in {
        "a.onnx": "output: a.onnx does not end in .safetensors; write such a name.",
        "none/a.safetensors": "output: the folder of none/a.safetensors does not exist; create it, or write another",
    }.items():
        refused = script("export.py", f"run={finished_run}", "format=safetensors", f"output={output}", cwd=tmp_path)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert refused.stderr.startswith(line)
    with pytest.raises(UserError, match=r"/b: cannot be written .*\. Fix it and rerun; output=FILE writes elsewhere\."):
        export(finished_run, "safetensors", output=f"{tmp_path}/a.safetensors/b")


def test_a_run_that_has_not_finished_says_so(finished_run, tmp_path):
    run, line = shutil.copytree(finished_run, tmp_path / "run"), "epoch 3 of 3; this run has not finished"
    (run / "results.json").unlink()
    for command in (
        ("export.py", "format=html"),
        ("predict.py", "images=test", "output=a.csv"),
        ("evaluate.py",),
    ):
        done = script(*command, "run=run", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, f"run: {line}\n")
        assert line not in done.stdout
    assert f"{line.capitalize()}." in (run / "network.html").read_text()


def damage_checkpoint(run):
    file = run / "checkpoints/best.ckpt"
    file.write_bytes(file.read_bytes()[:1000])


def change_network(run):
    MALFORMED["another network"].change(run / ".hydra/config.yaml")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: (run / "checkpoints/best.ckpt").unlink(), "best.ckpt: is missing: no epoch of this run has"),
        (damage_checkpoint, "best.ckpt: cannot be read .* it is damaged"),
        (change_network, "best.ckpt: does not fit .*config.yaml"),
    ],
)
def test_weights_that_are_missing_damaged_or_do_not_fit_are_reported(break_it, message, finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    break_it(run)
    with pytest.raises(UserError, match=message):
        load_run(run)

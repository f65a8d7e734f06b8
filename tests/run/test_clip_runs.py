"""Runs on clips, from training to an exported program."""

import csv
import json

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quadrant_lstm import load_run
from quadrant_lstm.model.join import Join
from quadrant_lstm.model.protocols import logits_after_steps
from quadrant_lstm.run.inputs import Inputs
from quadrant_lstm.run.program import program_file
from quadrant_lstm.run_folder import read_rows
from tests.folders import TINY, run_folder, write_idx_folder
from tests.networks import RECURRENT, Pooled
from tests.scripts import script

MOVING = ("data=moving_digits", "data.dataset=idx", "data.label=motion", "data.canvas=[12,10]", "data.num_frames=7")


@pytest.fixture(scope="module")
def clip_run(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("clips")
    data = f"data.root={write_idx_folder(cwd / 'tiny')}"
    done = script("train.py", *MOVING, data, *TINY[1:], cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "[N, T=7, 1, 12, 10]" in done.stdout
    return run_folder(cwd)


def test_a_run_on_clips_has_an_accuracy_after_each_frame_and_is_tested_again(clip_run):
    assert {f"val/accuracy_step_{step}" for step in range(1, 8)} <= set(read_rows(clip_run / "metrics.csv")[0])
    results = json.loads((clip_run / "results.json").read_text())
    assert results["test/images"] == 70
    again = script("evaluate.py", "run=latest", cwd=clip_run.parents[2])
    assert f"{'test/accuracy':20}  {results['test/accuracy']}\n" in again.stdout


def test_its_dashboard_shows_strips_of_frames_and_the_worth_of_each(clip_run):
    events = EventAccumulator(str(clip_run), size_guidance={"images": 0}).Reload()
    tags = set(events.Tags()["images"])
    assert {"data/clips", "belief/example_1", "test/occluded_step", "test/mistakes_1", "inside/gates"} <= tags
    assert not tags & {"data/orderings", "test/occluded_piece", "test/occluded_ordering"}
    curves = [tag for tag in events.Tags()["tensors"] if tag.startswith("precision_recall/")]
    assert curves == [f"precision_recall/{arrow}" for arrow in "→↘↓↙←↖↑↗"]


def test_its_test_clips_are_predicted_with_their_classes(clip_run, tmp_path):
    cwd, output = clip_run.parents[2], tmp_path / "clips.csv"
    done = script("predict.py", "run=latest", "images=test", f"output={output}", cwd=cwd)
    assert done.returncode == 0, done.stderr
    correct = sum(row["class"] == row["prediction"] for row in csv.DictReader(output.open()))
    assert correct / 70 == json.loads((clip_run / "results.json").read_text())["test/accuracy"]
    refused = script("predict.py", "run=latest", f"images={cwd}", cwd=cwd)
    assert refused.returncode == 2


def test_its_exported_program_reads_clips_of_any_length(clip_run):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    done = script("export.py", "run=latest", "format=onnx", cwd=clip_run.parents[2])
    assert "for batches of 1 and 7, and 7 and 14 frames" in done.stdout
    session = onnxruntime.InferenceSession(clip_run / "network.onnx")
    network, _ = load_run(clip_run)
    clips = torch.rand(3, 11, 1, 12, 10)
    (probabilities,) = session.run(None, {"clips": clips.numpy()})
    assert np.allclose(probabilities, network(clips).softmax(1).detach().numpy(), atol=1e-5)


def test_a_network_that_reads_pieces_is_refused(tmp_path):
    done = script("train.py", "data=moving_digits", "model=deep", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("model: deep joins the pieces of images, which clips do not have; choose another")


def join(recurrent) -> Join:
    torch.manual_seed(0)
    sizes = {"dropout": 0.0, "lstm_units": 3, "dense_units": 4, "shared_tiles": True}
    return Join((1, 6, 6), 3, 5, None, Pooled, RECURRENT[recurrent], **sizes).eval()


@pytest.mark.parametrize("recurrent", RECURRENT)
def test_a_padded_clip_has_the_logits_of_the_clip_alone(recurrent):
    network, clips, lengths = join(recurrent), torch.randn(3, 5, 1, 6, 6), torch.tensor([5, 2, 4])
    with torch.no_grad():
        logits = network(clips, lengths=lengths)
        steps = logits_after_steps(network, clips, lengths)
        assert torch.allclose(steps[:, -1], logits, atol=1e-6)
        for number, length in enumerate(lengths):
            if recurrent == "concat":  # reads five steps, and padding as zeros
                continue
            alone = logits_after_steps(network, clips[number : number + 1, :length])
            assert torch.allclose(alone[0, -1], logits[number], atol=1e-6)
            if steps.shape[1] > 1:
                assert torch.allclose(steps[number, :length], alone[0], atol=1e-6)
                assert torch.equal(steps[number, length:], steps[number, length - 1].expand(5 - int(length), -1))


def test_a_program_of_a_network_for_one_number_of_steps_says_so():
    clips = Inputs("clips", (5, 1, 6, 6), lambda clips: clips)
    assert not program_file("torch", join("concat"), clips, {}).any_steps
    assert program_file("torch", join("mean"), clips, {}).any_steps

"""Runs on videos: their programs, the page that tells how to use these, and windows of long videos."""

import json
import re

import numpy as np
import pytest
import torch

from quadrant_lstm import load_predictor
from quadrant_lstm.model.network import Join
from quadrant_lstm.run.exported_program import Inputs, program_file
from quadrant_lstm.run.predictor import predictor_of_onnx, predictor_of_session
from tests.networks import RECURRENT, Pooled
from tests.scripts import ROOT, call_unchecked

each_run = pytest.mark.parametrize("kind", ["colour", "grey"])
CLIPS = Inputs("clips", (5, 1, 6, 6), lambda clips: clips)


def join(recurrent) -> Join:
    torch.manual_seed(0)
    sizes = {"dropout": 0.0, "lstm_units": 8, "dense_units": 4, "shared_tiles": True}
    network = Join((1, 6, 6), 3, 5, None, Pooled, RECURRENT[recurrent], **sizes).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network


def check_program(recurrent: str) -> None:
    import io

    import onnxruntime

    network, clips, lengths = join(recurrent), torch.rand(3, 5, 1, 6, 6), torch.tensor([5, 2, 4])
    session = onnxruntime.InferenceSession(program_file("onnx", network, CLIPS, {}).content)
    program = torch.export.load(io.BytesIO(program_file("torch", network, CLIPS, {}).content)).module()
    steps = 5 if recurrent == "concat" else "steps"
    assert [entry.shape for entry in session.get_inputs()] == [["batch", steps, 1, 6, 6], ["batch"]]
    found = session.run(None, {"clips": clips.numpy(), "lengths": lengths.numpy()})[0]
    with torch.inference_mode():
        assert torch.allclose(program(clips, lengths), torch.tensor(found), atol=1e-5)
        for number, length in enumerate(lengths):
            alone = clips[number : number + 1, :length]
            if recurrent == "concat":  # it reads one number of steps, and padding as zeros
                alone = torch.nn.functional.pad(alone, (0, 0, 0, 0, 0, 0, 0, 5 - length))
            expected = network(alone).softmax(1)[0].numpy()
            if length < 5:
                assert abs(expected - network(clips[number : number + 1]).softmax(1)[0].numpy()).max() > 1e-4
            assert np.allclose(found[number], expected, atol=1e-5)


SLOW = {"gru", "bilstm", "stacked", "conv_lstm", "transformer", "mean", "last"}  # an export takes seconds


@pytest.mark.parametrize(
    "recurrent", [pytest.param(name, marks=[pytest.mark.reliability] if name in SLOW else []) for name in RECURRENT]
)
def test_a_padded_batch_of_a_program_equals_its_clips_alone(recurrent):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    call_unchecked(check_program, recurrent)


@each_run
def test_a_program_reads_files_as_the_run_does_in_batches_and_alone(kind, video_run, exported_videos):
    program, predictor = predictor_of_onnx(str(exported_videos(kind))), load_predictor(video_run(kind))
    files = sorted(video_run(kind).parents[3].glob("videos/test/*/*.mp4"))
    pixels = [program.files.read(file, None).pixels for file in files]
    assert sorted({clip.shape[1] for clip in pixels}) == [2, 4]  # so that some are padded
    expected = [prediction.probabilities for prediction in predictor(files)]
    assert np.allclose([steps[-1] for steps in program.probabilities(pixels)], expected, atol=1e-5)
    assert np.allclose(program.probabilities(pixels[:1])[0][-1], expected[0], atol=1e-5)
    one_window = [clip[:1] for clip in pixels]
    assert abs(np.array(program.probabilities(one_window)) - np.array(expected)[:, None]).max() > 1e-5


def test_a_program_without_lengths_reads_clips_one_by_one():
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    network = join("mean")
    forward = type("Alone", (torch.nn.Module,), {"forward": lambda self, frames: network(frames)})
    metadata = {"config": "data: {num_frames: 5}", "class_names": '["0", "1", "2"]'}
    session = onnxruntime.InferenceSession(program_file("onnx", forward(), CLIPS, metadata).content)
    assert [entry.name for entry in session.get_inputs()] == ["clips"]
    clips = [np.random.default_rng(0).integers(0, 256, (2, steps, 1, 6, 6)).astype(np.uint8) for steps in (5, 3)]
    for clip, steps in zip(clips, predictor_of_session(session).probabilities(clips), strict=True):
        expected = network(torch.from_numpy(clip) / 255).softmax(1).mean(0).detach()
        assert np.allclose(steps[-1], expected, atol=1e-5)


(BLOCK,) = re.findall(r"```python\n(import json\n\nimport av.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)


@each_run
def test_the_code_of_the_page_reads_a_video_as_predict_does(kind, video_run, exported_videos, tmp_path, monkeypatch):
    (tmp_path / "network.onnx").symlink_to(exported_videos(kind))
    monkeypatch.chdir(tmp_path)
    assert not re.search("torch|quadrant", BLOCK)
    predictor = load_predictor(video_run(kind))
    for file in video_run(kind).parents[3].glob("videos/test/*/*.mp4"):
        (tmp_path / "clip.mp4").unlink(missing_ok=True)
        (tmp_path / "clip.mp4").symlink_to(file)
        names: dict = {}
        exec(BLOCK, names)
        assert np.allclose(names["probabilities"], predictor(file).probabilities, atol=1e-4)
    reading = json.loads(names["metadata"]["reading"])
    assert (reading["colours"], reading["size"], reading["test_windows"]) == (
        "RGB" if kind == "colour" else "grey",
        [12, 16],
        2,
    )

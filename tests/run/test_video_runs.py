"""Runs on videos: their programs, the page that tells how to use these, and windows of long videos."""

import itertools
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from quadrant_lstm import load_predictor
from quadrant_lstm.data import clip_frames
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.network import Join
from quadrant_lstm.run.export import GREY
from quadrant_lstm.run.exported_program import Inputs, program_file
from quadrant_lstm.run.predict import predict_files
from quadrant_lstm.run.predictor import num_windows, predictor_of_onnx, predictor_of_session
from tests.clips import noise_clip, write_folder, write_gif, write_video
from tests.networks import RECURRENT, join
from tests.scripts import ROOT, call_unchecked, script

each_run = pytest.mark.parametrize("kind", ["colour", "grey"])
CLIPS = Inputs("clips", (5, 1, 6, 6), lambda clips: clips)


def network_of(recurrent: str) -> Join:
    network = join(recurrent, units=8)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    torch.nn.init.zeros_(network.encoder.module[0].bias)  # so that the features of black frames are zeros, as padding
    return network


def check_program(recurrent: str) -> None:
    import io

    import onnxruntime

    network, clips, lengths = network_of(recurrent), torch.rand(3, 5, 1, 6, 6), torch.tensor([5, 2, 4])
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


@pytest.mark.reliability  # an export takes seconds; the two runs on videos have programs of an LSTM and of concat
@pytest.mark.parametrize("recurrent", RECURRENT)
def test_a_padded_batch_of_a_program_equals_its_clips_alone(recurrent):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    call_unchecked(check_program, recurrent)


@each_run
def test_a_program_reads_files_as_the_run_does_in_batches_and_alone(kind, video_run, exported_videos):
    program, predictor = predictor_of_onnx(str(exported_videos(kind))), load_predictor(video_run(kind))
    files = sorted(video_run(kind).parents[3].glob("videos/test/*/*.mp4"))
    pixels = [next(program.read(file)).pixels for file in files]
    assert sorted({clip.shape[1] for clip in pixels}) == [2, 4]  # so that some are padded
    expected = [prediction.probabilities for prediction in predictor(files)]
    assert np.allclose([steps[-1] for steps in program.probabilities(pixels)], expected, atol=1e-5)
    assert np.allclose(program.probabilities(pixels[:1])[0][-1], expected[0], atol=1e-5)
    one_window = [clip[:1] for clip in pixels]
    assert abs(np.array(program.probabilities(one_window)) - np.array(expected)[:, None]).max() > 1e-5


@pytest.mark.reliability
def test_a_program_without_lengths_reads_clips_one_by_one():
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    network = network_of("mean")
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
    colours = {"colour": "RGB", "grey": "grey"}[kind]
    assert reading.items() >= {"colours": colours, "size": [12, 16], "test_windows": 2}.items()


def test_pictures_become_grey_by_the_formula_of_the_metadata():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    channels = dict(zip("RGB", pixels.astype(int).transpose(2, 0, 1), strict=True))
    expected = eval(GREY["pictures"].partition(",")[0], channels)
    frame_format = clip_frames.FrameFormat(1, None, None, "stretch")
    assert np.array_equal(clip_frames.as_array(Image.fromarray(pixels), frame_format)[:, :, 0], expected)


# Windows of long videos


@pytest.fixture(scope="module")
def long(tmp_path_factory, video_run):
    """A video of 2.6 seconds, 25 frames per second, and its frames in RGB and in grey."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    write_video(path, noise_clip(65, 24, 24))
    return path, *(list(decoded_frames(path, format)) for format in ("rgb24", "gray"))


def decoded_frames(path, format):
    import av

    with av.open(str(path)) as video:
        for frame in video.decode(video=0):
            yield frame.to_ndarray(format=format)


def test_each_window_is_classified_as_the_clip_that_it_would_be(video_run, long, predictions_of, tmp_path):
    path, _, frames = long
    parts = load_predictor(video_run("grey"))([np.array(frames[start : start + 25]) for start in (0, 25, 50)])
    rows = predictions_of(video_run("grey"), path, window=1.0)
    words = (f"run={video_run('grey')}", f"images={path}")
    done = script("predict.py", *words, "window=1s", "output=x.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = list(map(json.loads, (tmp_path / "x.jsonl").open()))
    for found in (rows, lines):
        assert [(float(row["start"]), float(row["end"])) for row in found] == [(0, 1), (1, 2), (2, 2.6)]
        assert [row["prediction"] for row in found] == [part.label for part in parts]
    expected = [part.probabilities for part in parts]
    assert [[float(row["bright"]), float(row["dark"])] for row in rows] == expected
    assert [line["probabilities"][-1] for line in lines] == expected
    done = script("predict.py", *words, "window=.65s", cwd=tmp_path)
    assert [line.rpartition("long.mp4")[2] for line in done.stdout.splitlines()[1:]] == [
        ", 0.00 to 0.65 s", ", 0.65 to 1.30 s", ", 1.30 to 1.95 s", ", 1.95 to 2.60 s"
    ]  # fmt: skip


def test_a_window_is_sampled_by_the_times_of_its_frames(video_run, long):
    path, frames, _ = long
    predictor = load_predictor(video_run("colour")).predictor
    windows = list(predictor.read(path, window=1.0))
    assert [window.window for window in windows] == [(0.0, 1.0), (1.0, 2.0), (2.0, 2.6)]
    whole, box = [Image.fromarray(frame) for frame in frames], (0, 3, 24, 21)
    resized = [frame.resize((16, 12), Image.Resampling.BILINEAR, box=box) for frame in whole]
    # at 10 frames per second those with the numbers 0, 2, 5, 7, 10, 12, 15, 17, 20 and 22 are shown, of which four are
    # taken in each of two windows of the test
    for number, numbers in enumerate([[0, 7, 12, 20], [2, 10, 15, 22]]):
        expected = np.array([np.asarray(resized[25 + place]) for place in numbers])
        assert np.array_equal(windows[1].pixels[number], expected.transpose(0, 3, 1, 2))


def test_a_frame_is_shown_until_the_next_one_also_in_later_windows(video_run, tmp_path):
    predictor = load_predictor(video_run("grey")).predictor
    write_video(tmp_path / "slow.mkv", noise_clip(5, 24, 24), times=[0, 10, 20, 30, 350])
    windows = list(predictor.read(tmp_path / "slow.mkv", window=1.0))
    assert [(part.window[0], part.pixels.shape[1]) for part in windows] == [(0, 2), (1, 1), (2, 1), (3, 1)]
    shown = list(decoded_frames(tmp_path / "slow.mkv", "gray"))
    for (pixels, *_), number in zip(windows[1:], (3, 3, 4), strict=True):
        resized = Image.fromarray(shown[number]).resize((16, 12), Image.Resampling.BILINEAR)
        assert np.array_equal(pixels[0, 0, 0], resized)


def test_a_rest_of_less_than_half_a_window_is_left_out(video_run, long):
    predictor = load_predictor(video_run("grey")).predictor
    for seconds, ends in {1.1: [1.1, 2.2], 1.8: [1.8], 2.6: [2.6], 1.3: [1.3, 2.6]}.items():
        assert [part.window[1] for part in predictor.read(long[0], window=seconds)] == ends
        assert num_windows(long[0], seconds) == len(ends)


def test_a_window_is_read_before_the_rest_of_the_video(video_run, long, tmp_path, monkeypatch):
    frames = clip_frames.frames_in

    def breaking(*arguments):
        yield from itertools.islice(frames(*arguments), 30)
        raise ValueError("it is damaged")

    monkeypatch.setattr(clip_frames, "frames_in", breaking)
    windows = load_predictor(video_run("grey")).predictor.read(long[0], window=1.0)
    assert next(windows).window == (0.0, 1.0)
    with pytest.raises(UserError, match=r"long.mp4: cannot be read as a clip \(it is damaged\); replace it, or leave"):
        next(windows)


def test_what_cannot_be_cut_into_windows_costs_one_line(video_run, long, finished_run, tmp_path, capsys):
    predictor = load_predictor(video_run("grey")).predictor
    write_folder(tmp_path / "pictures", noise_clip(3))
    write_gif(tmp_path / "x.gif", noise_clip(3))
    for each, files, window, message in (
        (predictor, long[:1], 2.7, "2.7s is longer than .*long.mp4, which has 2.60 s; write a shorter one."),
        (predictor, [tmp_path / "pictures"], 1.0, "is for videos, but .*/pictures is none; leave it out."),
        (predictor, [tmp_path / "x.gif"], 1.0, "is for videos, but .*/x.gif is none; leave it out."),
        (load_predictor(finished_run).predictor, 2 * long[:1], 1.0, "is for videos, but this network reads images; "),
    ):
        (tmp_path / "x.csv").write_text("precious")
        with pytest.raises(UserError, match=f"^window: {message}"):
            predict_files(each, files, None, str(tmp_path / "x.csv"), window)
        assert (tmp_path / "x.csv").read_text() == "precious" and not (tmp_path / "x.csv.part").exists()
    with pytest.raises(UserError, match="^images: 1 of 2 files cannot be read; they are named above.$"):
        predict_files(predictor, [tmp_path / "pictures", long[0]], None, str(tmp_path / "x.csv"), 1.0)
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "/pictures is none" in line

"""Runs on clips, from training to an exported program."""

import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quadrant_lstm import load_run
from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.data.clip_index import find_clip_files
from quadrant_lstm.data.moving_digits import ARROWS
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.network import Join
from quadrant_lstm.model.protocols import logits_after_steps
from quadrant_lstm.run.exported_program import Inputs, program_file
from quadrant_lstm.run.load import load_classifier
from quadrant_lstm.run.predict import predict_files
from quadrant_lstm.run.predictor import files_of_clips, of_clips, predictor_of_run
from quadrant_lstm.run_folder import read_results, read_rows
from tests.clips import noise_clip, write_clip_folder, write_folder, write_gif
from tests.folders import TINY, children, run_folder, write_idx_folder
from tests.networks import RECURRENT, Pooled
from tests.scripts import Script, script

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
    row = read_rows(clip_run / "metrics.csv")[0]
    assert all(row[f"val/accuracy_step_{step}"] for step in range(1, 8))
    results = read_results(clip_run)
    assert results["test/images"] == 70
    again = script("evaluate.py", "run=latest", cwd=clip_run.parents[2])
    assert f"{'test/accuracy':20}  {results['test/accuracy']}\n" in again.stdout


def test_its_dashboard_shows_strips_of_frames_and_the_worth_of_each(clip_run):
    events = EventAccumulator(str(clip_run), size_guidance={"images": 0}).Reload()
    tags = {tag.removeprefix("view_") for tag in events.Tags()["images"]}
    assert {"data/clips", "belief/example_1", "test/occluded_step", "test/mistakes_1", "inside/gates"} <= tags
    assert not tags & {"data/orderings", "test/occluded_piece", "test/occluded_ordering"}
    curves = [tag for tag in events.Tags()["tensors"] if tag.startswith("precision_recall/")]
    assert curves == [f"precision_recall/{arrow}" for arrow in "→↘↓↙←↖↑↗"]


def test_its_test_clips_are_predicted_with_their_classes(clip_run, tmp_path):
    cwd, output = clip_run.parents[2], tmp_path / "clips.csv"
    done = script("predict.py", "run=latest", "images=test", f"output={output}", cwd=cwd)
    assert done.returncode == 0, done.stderr
    correct = sum(row["class"] == row["prediction"] for row in csv.DictReader(output.open()))
    assert correct / 70 == read_results(clip_run)["test/accuracy"]


def test_files_of_clips_are_predicted_as_the_network_reads_them(clip_run, tmp_path):
    write_clip_folder(tmp_path / "clips", halves=("",), num_frames=[7, 3])
    write_folder(tmp_path / "clips/pictures", noise_clip(2))
    classifier, cfg = load_classifier(clip_run)
    network = classifier.network.eval()
    predictor = predictor_of_run(network, OmegaConf.merge(cfg.data, {"layout": "THWC"}), classifier.spec)
    files = list(predictor.files.find(str(tmp_path / "clips")))
    assert [str(file.relative_to(tmp_path / "clips")) for file in files] == [
        *(f"bright/{number}.npy" for number in range(4)), *(f"dark/{number}.npy" for number in range(4)), "pictures"
    ]  # fmt: skip
    predict_files(predictor, files, None, str(tmp_path / "clips.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "clips.jsonl").read_text().splitlines()]
    assert [len(row["probabilities"]) for row in rows] == [7, 3, 7, 3] * 2 + [2]
    for file, row in zip(files, rows, strict=True):
        clip = torch.from_numpy(predictor.files.read(file, None).pixels)[None] / 255
        assert clip.shape[2:] == (1, 12, 10)
        expected = network.logits_per_step(clip)[0].softmax(1)
        assert torch.allclose(torch.tensor(row["probabilities"]), expected, atol=1e-5)
        assert row["prediction"] == ARROWS[int(expected[-1].argmax())]


def test_clips_whose_names_are_not_utf_8_are_predicted(clip_run, tmp_path):
    strange, cwd = os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.gif"), clip_run.parents[2]
    write_gif(Path(strange), noise_clip(2))
    for images in (tmp_path, strange):
        done = script("predict.py", "run=latest", f"images={images}", cwd=cwd, PYTHONIOENCODING="utf-8:strict")
        assert (done.returncode, done.stderr) == (0, "")
        for name in ("x.csv", "x.jsonl"):
            output = f"output={tmp_path / name}"
            assert script("predict.py", "run=latest", f"images={images}", output, cwd=cwd).returncode == 0
    row = next(csv.DictReader((tmp_path / "x.csv").open(encoding="utf-8")))
    assert row["file"] == json.loads((tmp_path / "x.jsonl").read_text())["file"] == rf"{tmp_path}/\xe9.gif"


def test_a_missing_clip_is_refused_with_its_own_remedy(tmp_path):
    read = files_of_clips(OmegaConf.create({}), (3, 12, 16), 4).read
    with pytest.raises(UserError, match=r"no.mp4: .* \(No such file or directory\); correct its name, or leave it out"):
        read(tmp_path / "no.mp4", None)


def test_a_folder_of_animations_holds_several_clips(tmp_path):
    for number in range(3):
        (tmp_path / "clips/one").mkdir(parents=True, exist_ok=True)
        write_gif(tmp_path / f"clips/one/{number}.gif", noise_clip(2))
    write_folder(tmp_path / "clips/two/pictures", noise_clip(2))
    found = [str(clip.relative_to(tmp_path)) for clip in find_clip_files(str(tmp_path / "clips"))]
    assert found == ["clips/one/0.gif", "clips/one/1.gif", "clips/one/2.gif", "clips/two/pictures"]
    assert list(find_clip_files(str(tmp_path / "clips/two/pictures"))) == [tmp_path / "clips/two/pictures"]
    assert len(list(find_clip_files(str(tmp_path / "clips/one")))) == 3


def test_files_that_are_no_clips_are_named(tmp_path, capsys):
    (tmp_path / "clips/more").mkdir(parents=True)
    write_gif(tmp_path / "clips/one.gif", noise_clip(2))
    (tmp_path / "clips/more/two.m4v").touch()
    assert list(find_clip_files(str(tmp_path / "clips"))) == [tmp_path / "clips/one.gif"]
    assert capsys.readouterr().err == f"images: {tmp_path}/clips holds files that are left out: 1 .m4v.\n"


def test_a_network_that_reads_one_number_of_frames_is_given_padded_clips():
    network, spec = join("concat"), SequenceSpec((1, 6, 6), 5, ("0", "1", "2"))
    short, full = noise_clip(3, 6, 6)[..., :1].transpose(0, 3, 1, 2), noise_clip(5, 6, 6)[..., :1].transpose(0, 3, 1, 2)
    frames = torch.zeros(2, 5, 1, 6, 6)
    frames[0, :3], frames[1] = torch.from_numpy(short) / 255, torch.from_numpy(full) / 255
    expected = network(frames, lengths=torch.tensor([3, 5])).softmax(1)
    predict = of_clips(network, spec)
    for clips, rows in (([short, full], expected), ([short], expected[:1])):
        assert np.allclose(np.concatenate([steps[-1:] for steps in predict(clips)]), rows.detach(), atol=1e-6)


@pytest.fixture(scope="module")
def export_output(clip_run):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    done = script("export.py", "run=latest", "format=onnx", cwd=clip_run.parents[2])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_exported_program_reads_clips_of_any_length(clip_run, export_output):
    import onnxruntime

    assert "for batches of 1 and 7, and 7 and 14 frames" in export_output
    session = onnxruntime.InferenceSession(clip_run / "network.onnx")
    network, _ = load_run(clip_run)
    clips = torch.rand(3, 11, 1, 12, 10)
    (probabilities,) = session.run(None, {"clips": clips.numpy()})
    assert np.allclose(probabilities, network(clips).softmax(1).detach().numpy(), atol=1e-5)


@pytest.mark.usefixtures("export_output")
def test_its_exported_program_predicts_files_as_the_run_does(clip_run, tmp_path):
    for number in (2, 7):
        write_gif(tmp_path / f"{number}.gif", noise_clip(number))
    cwd, predictions = clip_run.parents[2], []
    for given in ("run=latest", f"model={clip_run}/network.onnx"):
        done = script("predict.py", given, f"images={tmp_path}", "output=files.jsonl", cwd=cwd)
        assert done.returncode == 0, done.stderr
        lines = (cwd / "files.jsonl").read_text().splitlines()
        predictions.append([json.loads(line)["probabilities"][-1] for line in lines])
    assert len(predictions[0]) == 2
    assert np.allclose(*predictions, atol=1e-5)


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
                assert torch.allclose(steps[number, length:], steps[number, length - 1], atol=1e-6)


def test_a_program_of_a_network_for_one_number_of_steps_says_so():
    clips = Inputs("clips", (5, 1, 6, 6), lambda clips: clips)
    assert not program_file("torch", join("concat"), clips, {}).any_steps
    assert program_file("torch", join("mean"), clips, {}).any_steps


@pytest.fixture(scope="module")
def own_clips_run(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("own")
    root = write_clip_folder(cwd / "data", per_class=8, num_frames=[2, 5, 3])
    return cwd, (
        "data=clips", f"data.root={root}", "data.layout=THWC", "data.num_frames=4", "data.batch_size=3",
        "data.num_workers=0", "model.filters=[4]", "model.pool_size=2", "optimizer.lr=0.01",
    )  # fmt: skip


def test_clips_of_ones_own_are_trained_on_tested_and_predicted(own_clips_run, monkeypatch):
    cwd, words = own_clips_run
    monkeypatch.setenv("HOME", str(cwd))
    done = script("train.py", *words, "trainer.max_epochs=2", cwd=cwd)
    assert done.returncode == 0, done.stderr
    run = run_folder(cwd)
    results = read_results(run)
    assert results["test/images"] == 16
    assert json.loads((run / "provenance.json").read_text())["data"]["dataset"] == "clips"
    again = script("evaluate.py", "run=latest", cwd=cwd)
    assert f"{'test/accuracy':20}  {results['test/accuracy']}\n" in again.stdout
    tested = script("predict.py", "run=latest", "images=test", "output=test.csv", cwd=cwd)
    files = script("predict.py", "run=latest", "images=data/test", "output=files.csv", cwd=cwd)
    assert (tested.returncode, files.returncode) == (0, 0)
    one, other = (list(csv.DictReader((cwd / name).open())) for name in ("test.csv", "files.csv"))
    assert [row["prediction"] for row in one] == [row["prediction"] for row in other]
    assert [row["file"] for row in one] == [str(cwd / row["file"]) for row in other]
    assert {row["class"] for row in one} == {"bright", "dark"}
    assert one[0]["step3_dark"] == ""  # a clip of two frames
    assert [float(row["dark"]) for row in one] == pytest.approx([float(row["dark"]) for row in other], abs=1e-5)


def test_a_resumed_run_on_clips_equals_an_uninterrupted_one(own_clips_run, tmp_path, monkeypatch):
    _, words = own_clips_run
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = []
    for name, epochs in (("whole", [3]), ("resumed", [1, 3])):
        run = tmp_path / name
        for number in epochs:
            place = f"run={run}" if run.exists() else f"hydra.run.dir={run}"
            start = () if run.exists() else (*words, "~trainer.callbacks.dashboard")
            done = script("train.py", *start, place, f"trainer.max_epochs={number}", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        weights.append(read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_killed_process_that_reads_clips_costs_one_line(own_clips_run, tmp_path, monkeypatch):
    _, words = own_clips_run
    monkeypatch.setenv("HOME", str(tmp_path))
    words = (*words, "data.num_workers=2", "~trainer.callbacks.dashboard", "trainer.max_epochs=300")
    training = Script("train.py", *words, cwd=tmp_path)
    next(line for line in training.lines() if line.startswith("epoch 2/"))
    os.kill(children(training.pid)[-1], signal.SIGKILL)
    training.wait()
    assert (training.returncode, training.stderr.count("\n")) == (2, 1)
    assert training.stderr.startswith("data.num_workers: a process that reads clips was killed, perhaps because")
    assert f"resume with run={run_folder(tmp_path).relative_to(tmp_path)}" in training.stderr


@pytest.mark.parametrize("first", ["the processes that read", "all at once"])
def test_sigterm_to_all_processes_ends_a_run_as_one_to_the_first_does(first, own_clips_run, tmp_path, monkeypatch):
    _, words = own_clips_run
    monkeypatch.setenv("HOME", str(tmp_path))
    words = (*words, "data.num_workers=2", "~trainer.callbacks.dashboard", "trainer.max_epochs=3000")
    training = Script("train.py", *words, cwd=tmp_path)
    next(line for line in training.lines() if line.startswith("epoch 2/"))
    if first == "all at once":
        training.send(signal.SIGSTOP)  # it finds all signals when it continues
    for reader in children(training.pid):
        os.kill(reader, signal.SIGTERM)
    if first == "the processes that read":
        time.sleep(0.5)  # a killed one would be reported within that time
    training.send(signal.SIGTERM)
    training.send(signal.SIGCONT)
    assert training.wait().returncode == 143, training.stderr
    assert "was killed" not in training.stderr


def test_skipped_clips_are_listed_in_the_run_folder(own_clips_run, tmp_path, monkeypatch):
    cwd, words = own_clips_run
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(cwd / "data", tmp_path / "data")
    (tmp_path / "data/train/dark/3.npy").write_bytes(b"")
    words = (*words, f"data.root={tmp_path / 'data'}", "~trainer.callbacks.dashboard", "trainer.max_epochs=1")
    refused = script("train.py", *words, cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "train/dark/3.npy: cannot be read as a clip (No data left in file)" in refused.stderr
    done = script("train.py", *words, "data.skip_broken=true", "hydra.run.dir=skipped", cwd=tmp_path)
    assert "data.skip_broken: left out 1 clip; skipped/skipped_clips.txt lists them" in done.stdout
    assert (tmp_path / "skipped/skipped_clips.txt").read_text() == (
        f"{tmp_path}/data/train/dark/3.npy: cannot be read as a clip (No data left in file)\n"
    )


def test_data_that_have_changed_are_noticed(own_clips_run, tmp_path, monkeypatch):
    cwd, words = own_clips_run
    monkeypatch.setenv("HOME", str(tmp_path))
    root = shutil.copytree(cwd / "data", tmp_path / "data")
    words = (*words, f"data.root={root}", "~trainer.callbacks.dashboard", "trainer.max_epochs=1")
    assert script("train.py", *words, cwd=tmp_path).returncode == 0
    uses = (
        ("evaluate.py", "run=latest"),
        ("predict.py", "run=latest", "images=test"),
        ("train.py", "run=latest", "trainer.max_epochs=2"),
    )
    (root / "test/dark/1.npy").unlink()
    for use in uses:
        done = script(*use, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "data: the files have changed since outputs/" in done.stdout
    for half in ("train", "test"):
        (root / half / "dark").rename(root / half / "another")
    for use in uses:
        refused = script(*[word.replace("epochs=2", "epochs=3") for word in use], cwd=tmp_path)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert refused.stderr.startswith("data: the classes are another, bright, but outputs/")
        assert "was trained on bright, dark; restore the data, or start a new run." in refused.stderr


def test_a_clip_longer_than_those_of_the_training_is_cut(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    root = write_clip_folder(tmp_path / "data", per_class=4, num_frames=[4])
    words = (
        "data=clips", f"data.root={root}", "data.layout=THWC", "data.num_frames=null", "data.num_workers=0",
        "model=join", "model.encoder.filters=[4]", "model/recurrent=concat", "~trainer.callbacks.dashboard",
    )  # fmt: skip
    done = script("train.py", *words, "trainer.max_epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.save(root / "test/dark/0.npy", noise_clip(9))
    for use in (("evaluate.py",), ("predict.py", "images=test"), ("train.py", "trainer.max_epochs=2")):
        done = script(*use, "run=latest", cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_clips_of_one_frame_are_trained_on(tmp_path):
    words = (f"data.root={write_idx_folder(tmp_path / 'tiny')}", "data.num_frames=1", "data.label=digit", *TINY)
    done = script("train.py", *MOVING, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = read_results(run_folder(tmp_path))
    assert results["test/accuracy_step_1"] == results["test/accuracy"]


def test_a_program_for_one_number_of_frames_refuses_shorter_clips(tmp_path):
    write_folder(tmp_path / "short", noise_clip(2))
    read = files_of_clips(OmegaConf.create({}), (3, 12, 16), 4, 4)[1]
    with pytest.raises(UserError, match=r"short: has 2 frames, but the network of this file reads exactly 4; predict"):
        read(tmp_path / "short", None)
    write_folder(tmp_path / "long", noise_clip(5))
    assert read(tmp_path / "long", None).pixels.shape == (4, 3, 12, 16)

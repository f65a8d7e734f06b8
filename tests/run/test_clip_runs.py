"""Runs on clips, from training to an exported program."""

import json
import os
import re
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from quadrant_lstm.data import datamodule
from quadrant_lstm.data.clip_frames import find_clip_files
from quadrant_lstm.data.moving_digits import ARROWS
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_csv
from quadrant_lstm.model.encoder import PooledEncoder
from quadrant_lstm.model.network import Reshaped
from quadrant_lstm.run.exported_program import Inputs, program_file
from quadrant_lstm.run.load import evaluate, load_classifier
from quadrant_lstm.run.predict import predict, predict_files
from quadrant_lstm.run.predictor import of_clips, predictor_of_onnx, predictor_of_run, reader_of_clips
from quadrant_lstm.run_folder import CONFIG, read_results, read_rows
from tests.clips import noise_clip, write_clip_folder, write_folder, write_gif
from tests.folders import assert_same_weights, children, run_folder, sweep_folder
from tests.networks import join
from tests.scripts import Script, refused, script, succeeds, train_with_a_kill, trained_once


def test_a_run_on_clips_is_tested_again_and_its_test_clips_are_predicted(clip_run, predictions_of):
    row = read_rows(clip_run / "metrics.csv")[0]
    assert all(row[f"val/accuracy_step_{step}"] for step in range(1, 8))
    results = read_results(clip_run)
    assert results["test/images"] == 70
    assert evaluate(clip_run, "cpu")["test/accuracy"] == results["test/accuracy"]
    rows = predictions_of(clip_run)
    assert sum(row["class"] == row["prediction"] for row in rows) / 70 == results["test/accuracy"]


def test_its_dashboard_shows_strips_of_frames_and_the_worth_of_each(clip_run):
    events = EventAccumulator(str(clip_run), size_guidance={"images": 0}).Reload()
    tags = {tag.removeprefix("view_") for tag in events.Tags()["images"]}
    assert {"data/clips", "belief/example_1", "test/occluded_step", "test/mistakes", "inside/gates"} <= tags
    assert not tags & {"data/orderings", "test/occluded_piece", "test/occluded_ordering"}
    curves = [tag for tag in events.Tags()["tensors"] if tag.startswith("precision_recall/")]
    assert curves == [f"precision_recall/{arrow}" for arrow in ARROWS]


def test_files_of_clips_are_predicted_as_the_network_reads_them(clip_run, tmp_path):
    write_clip_folder(tmp_path / "clips", per_class=2, halves=("",), num_frames=[7, 3])
    write_folder(tmp_path / "clips/pictures", noise_clip(2))
    classifier, cfg = load_classifier(clip_run)
    network = classifier.network.eval()
    predictor = predictor_of_run(network, OmegaConf.merge(cfg.data, {"layout": "THWC"}), classifier.spec)
    files = list(predictor.find(str(tmp_path / "clips")))
    names = [str(file.relative_to(tmp_path / "clips")) for file in files]
    assert names == ["bright/0.npy", "bright/1.npy", "dark/0.npy", "dark/1.npy", "pictures"]
    predict_files(predictor, files, None, str(tmp_path / "clips.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "clips.jsonl").read_text().splitlines()]
    assert [len(row["probabilities"]) for row in rows] == [7, 3, 7, 3, 2]
    for file, row in zip(files, rows, strict=True):
        clip = torch.from_numpy(next(predictor.read(file)).pixels) / 255
        assert clip.shape[2:] == (1, 12, 10)
        expected = network.logits_per_step(clip)[0].softmax(1)
        assert torch.allclose(torch.tensor(row["probabilities"]), expected, atol=1e-5)
        assert row["prediction"] == ARROWS[int(expected[-1].argmax())]


def test_clips_that_cannot_be_read_are_refused_with_their_own_remedy(tmp_path):
    write_folder(tmp_path / "short", noise_clip(2))
    write_folder(tmp_path / "long", noise_clip(5))
    read = reader_of_clips(OmegaConf.create({}), (3, 12, 16), 4, 4)  # of a program for one number of frames
    with pytest.raises(UserError, match=r"no.mp4: .* \(No such file or directory\); correct its name, or leave it out"):
        next(read(tmp_path / "no.mp4"))
    with pytest.raises(UserError, match=r"short: has 2 steps, but this network needs 4; give a longer one; or, with"):
        next(read(tmp_path / "short"))
    assert next(read(tmp_path / "long")).pixels.shape == (1, 4, 3, 12, 16)


class SumOverSteps(nn.Module):
    def forward(self, frames):
        return frames.flatten(2).sum(1)[:, :2]


def test_a_network_without_lengths_is_given_sequences_of_one_length(tmp_path):
    data, spec = OmegaConf.create({"num_frames": 4}), SequenceSpec((3, 12, 16), 4, ("0", "1"))
    write_folder(tmp_path / "short", noise_clip(2))
    for network, reads_any in (
        (Reshaped((3, 12, 16), 2, 4, [2], 3, 2, 0.0, 3, 4), False),
        (SumOverSteps(), True),
    ):
        predictor = predictor_of_run(network.eval(), data, spec)
        clips = [noise_clip(number).transpose(0, 3, 1, 2)[None] for number in (4, 3 if reads_any else 4)]
        for clip, steps in zip(clips, predictor.probabilities(clips), strict=True):
            expected = network(torch.from_numpy(clip) / 255).softmax(1).detach()
            torch.testing.assert_close(torch.from_numpy(steps), expected)
        if not reads_any:
            with pytest.raises(UserError, match="short: has 2 steps, but this network needs 4; give a longer one"):
                next(predictor.read(tmp_path / "short"))


def test_a_folder_of_pictures_that_are_clips_is_noted(tmp_path):
    write_folder(tmp_path / "pictures", noise_clip(3))
    read = reader_of_clips(OmegaConf.create({}), (3, 12, 16), 1)
    assert next(read(tmp_path / "pictures")).note == "only 1 of 3 frames were read"
    assert next(read(tmp_path / "pictures/frame1.png")).note == ""


def test_a_frame_is_no_clip_for_a_network_that_reads_several(tmp_path):
    write_folder(tmp_path / "pictures", noise_clip(3))
    (tmp_path / "pictures/two.mp4").touch()  # so that the folder is no clip
    write_gif(tmp_path / "pictures/one.gif", noise_clip(1))
    read = reader_of_clips(OmegaConf.create({}), (3, 12, 16), 4)
    with pytest.raises(
        UserError, match="frame1.png: is a single picture, but this network reads clips; put the frames"
    ):
        next(read(find_clip_files(str(tmp_path))[0]))
    assert len(next(read(tmp_path / "pictures/one.gif")).pixels[0]) == 1


def grey_clip(num_frames: int) -> np.ndarray:
    """Returns one window of a clip, [1, frames, 1, 6, 6]."""
    return noise_clip(num_frames, 6, 6)[None, ..., :1].transpose(0, 1, 4, 2, 3)


def test_a_large_batch_is_read_in_parts(monkeypatch):
    monkeypatch.setattr(datamodule, "BYTES_AT_ONCE", 3 * 5 * 36)
    counts, network = [], join("gru")

    def compute(frames, lengths):
        counts.append(len(frames))
        return network.logits_per_step(frames, lengths)

    clips = list(map(grey_clip, (3, 5, 2, 5, 4)))
    with torch.no_grad():
        together = of_clips(compute, (1, 6, 6), 1)(clips)
        alone = [network.logits_per_step(torch.from_numpy(clip) / 255)[0] for clip in clips]
    assert counts == [3, 2]
    torch.testing.assert_close(list(map(torch.from_numpy, together)), alone, atol=1e-5, rtol=0)


def test_a_network_that_reads_one_number_of_frames_is_given_padded_clips():
    network, spec = join("concat"), SequenceSpec((1, 6, 6), 5, ("0", "1", "2"))
    short, full, frames = grey_clip(3), grey_clip(5), torch.zeros(2, 5, 1, 6, 6)
    frames[0, :3], frames[1] = torch.from_numpy(short[0]) / 255, torch.from_numpy(full[0]) / 255
    expected = network(frames, lengths=torch.tensor([3, 5])).softmax(1).detach()
    predict = predictor_of_run(network, OmegaConf.create({}), spec).probabilities
    for clips in ([short, full], [short]):
        assert np.allclose([steps[-1] for steps in predict(clips)], expected[: len(clips)], atol=1e-6)


def test_its_exported_program_predicts_clips_of_any_length_as_the_run_does(clip_run, predictions_of, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    for number in (2, 7, 11):
        write_gif(tmp_path / f"{number}.gif", noise_clip(number))
    done = succeeds("export.py", "run=latest", "format=onnx", f"output={tmp_path}/x.onnx", cwd=clip_run.parents[2])
    assert "for batches of 1 and 7, and 7 and 14 frames" in done.stdout
    predictor = predictor_of_onnx(f"{tmp_path}/x.onnx")
    predict_files(predictor, predictor.find(f"{tmp_path}/*.gif"), None, f"{tmp_path}/program.csv")
    rows = read_csv(tmp_path / "program.csv")
    for one, other in zip(rows, predictions_of(clip_run, tmp_path / "*.gif"), strict=True):
        assert one["file"] == other["file"]
        assert all(float(one[arrow]) == pytest.approx(float(other[arrow]), abs=1e-5) for arrow in ARROWS)


@pytest.mark.parametrize("format", ["torch", pytest.param("onnx", marks=pytest.mark.reliability)])
def test_a_program_reads_any_number_of_frames_unless_its_network_reads_one(format):
    """A pooled encoder's grid need not divide its maps."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    network = join("mean", partial(PooledEncoder, filters=[4, 4], grid=[2, 4]), frame_shape=(3, 20, 23))
    for num_steps in (4, 1):  # one step is special to torch.export
        inputs = Inputs("clips", (num_steps, 3, 20, 23), lambda clips: clips)
        assert program_file(format, network, inputs, {}).any_steps
    if format == "torch":
        inputs = Inputs("clips", (5, 1, 6, 6), lambda clips: clips)
        assert not program_file(format, join("concat"), inputs, {}).any_steps


OWN_CLIPS = (
    "data=clips", "data.layout=THWC", "data.num_frames=4", "data.batch_size=3", "data.num_workers=0",
    "model.filters=[4]", "model.pool_size=2", "optimizer.lr=0.01", "data.skip_broken=true",
    "data.augmentation.crop=0.5", "data.augmentation.colour=0.2", "~trainer.callbacks.dashboard",
)  # fmt: skip


@pytest.fixture(scope="session")
def own_clips_run(shared_folder):
    """Returns the folder of a run of two epochs without a broken clip, and the words that started it."""

    def prepare(cwd):
        root = write_clip_folder(cwd / "data", num_frames=[2, 5, 3])
        (root / "train/dark/3.npy").write_bytes(b"")
        return *OWN_CLIPS, f"data.root={root}", "trainer.max_epochs=2"

    run = trained_once(shared_folder / "own_clips", prepare, HOME=str(shared_folder))
    return run, (*OWN_CLIPS, f"data.root={run.parents[2] / 'data'}")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def test_clips_of_ones_own_are_tested_and_predicted(own_clips_run, predictions_of):
    run, _ = own_clips_run
    results, root = read_results(run), run.parents[2] / "data"
    said = (run.parents[2] / "stdout").read_text()
    assert re.search("data.skip_broken: left out 1 clip; outputs/.*/skipped_clips.txt lists them", said)
    line = f"{root}/train/dark/3.npy: cannot be read as a clip (No data left in file)\n"
    assert (run / "skipped_clips.txt").read_text() == line
    assert results["test/images"] == 8
    assert json.loads((run / "provenance.json").read_text())["data"]["dataset"] == "clips"
    assert evaluate(run, "cpu")["test/accuracy"] == results["test/accuracy"]
    tested, files = predictions_of(run), predictions_of(run, root / "test")
    for one, other in zip(tested, files, strict=True):
        assert (one["file"], one["prediction"]) == (other["file"], other["prediction"])
        assert float(one["dark"]) == pytest.approx(float(other["dark"]), abs=1e-5)
    assert {row["class"] for row in tested} == {"bright", "dark"}
    assert tested[0]["step3_dark"] == ""  # a clip of two frames


def test_a_killed_run_on_augmented_clips_resumes_exactly(own_clips_run, tmp_path):
    run, words = own_clips_run
    assert_same_weights(train_with_a_kill(*words, "trainer.max_epochs=2", cwd=tmp_path), run)


def test_a_sweep_over_test_folds_on_two_processes_tests_each_clip_once(tmp_path):
    write_clip_folder(tmp_path / "data", per_class=6, halves=["."])
    processes = ("trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=1")
    folds = ("data.num_folds=2", "data.test_fold=0,1", "data.validation_share=0")
    root = f"data.root={tmp_path / 'data'}"
    succeeds("train.py", "-m", *OWN_CLIPS, root, *processes, *folds, cwd=tmp_path)
    jobs = sorted(sweep_folder(tmp_path).glob("[0-1]"))
    assert [read_results(job)["test/images"] for job in jobs] == [6, 6]
    tested = [row["path"] for job in jobs for row in read_csv(job / "clips.csv") if row["split"] == "test"]
    assert len(tested) == len(set(tested)) == 12


def test_a_run_is_not_tested_on_a_clip_that_it_was_trained_on(own_clips_run, tmp_path):
    whole, _ = own_clips_run
    run, root = shutil.copytree(whole, tmp_path / "run"), shutil.copytree(whole.parents[2] / "data", tmp_path / "data")
    places = {"root": str(root), "labels": None}
    (root / "train/dark/0.npy").rename(root / "test/dark/9.npy")
    with pytest.raises(UserError, match="data: test/dark/9.npy is for test, but .* was trained on it; restore the"):
        evaluate(run, "cpu", places=places)
    (root / "test/dark/9.npy").rename(root / "train/dark/0.npy")
    shutil.copy(root / "train/dark/0.npy", root / "test/dark/1.npy")  # by a name that was for the test before
    with pytest.raises(UserError, match="data: test/dark/1.npy is for test, but .* was trained on it; restore the"):
        evaluate(run, "cpu", places=places)
    rows = [row["split"] for row in read_csv(run / "clips.csv")]
    assert {split: rows.count(split) for split in rows} == {"training": 5, "validation": 2, "test": 8}


def test_clips_that_have_moved_are_tested_where_they_are(own_clips_run, tmp_path, monkeypatch, predictions_of):
    whole, _ = own_clips_run
    run, accuracy = shutil.copytree(whole, tmp_path / "run"), read_results(whole)["test/accuracy"]
    shutil.copytree(whole.parents[2] / "data", tmp_path / "clips, moved")
    config = run / CONFIG
    config.write_text(config.read_text().replace(str(whole.parents[2] / "data"), "data"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data.root: data is not a folder"):
        evaluate(run, "cpu")
    done = succeeds("evaluate.py", "run=run", "accelerator=cpu", "data.root=clips, moved", cwd=tmp_path)
    assert f"test/accuracy           {accuracy}\n" in done.stdout and "changed, came" not in done.stdout
    splits = {"training": "train", "validation": "val", "test": "test"}
    rows = [f"{row['path']},{row['class']},{splits[row['split']]}" for row in read_csv(run / "clips.csv")]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *rows]))
    places = {"root": "clips, moved", "labels": "table.csv"}
    tested = predictions_of(run, places=places)
    assert sum(row["class"] == row["prediction"] for row in tested) / 8 == accuracy


@pytest.fixture
def training(own_clips_run, tmp_path):
    """A training with two processes that read clips, in its third epoch."""
    _, words = own_clips_run
    training = Script("train.py", *words, "data.num_workers=2", "trainer.max_epochs=3000", cwd=tmp_path)
    next(line for line in training.lines() if line.startswith("epoch 2/"))
    return training


def test_a_killed_process_that_reads_clips_costs_one_line(training, tmp_path):
    os.kill(children(training.pid)[-1], signal.SIGKILL)
    training.wait()
    assert (training.returncode, training.stderr.count("\n")) == (2, 1), training.stderr
    assert training.stderr.startswith("data.num_workers: a process that reads clips was killed, perhaps because")
    assert f"resume with run={run_folder(tmp_path).relative_to(tmp_path)}" in training.stderr


def test_a_killed_process_is_named_where_a_library_answers_with_another_error():
    with pytest.raises(UserError, match="^write fewer$"), datamodule.killed_workers_explained("write fewer"):
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        except RuntimeError as error:
            raise TypeError("unsupported callable") from error


@pytest.mark.parametrize("first", ["the processes that read", "all at once"])
def test_sigterm_to_all_processes_ends_a_run_as_one_to_the_first_does(first, training):
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


def skipping(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Writes clips, one of which is broken. Returns their folder, and words of a training that leaves it out."""
    root = write_clip_folder(folder, num_frames=[4])
    (root / "train/dark/9.npy").write_bytes(b"")
    return root, (
        "data=clips", f"data.root={root}", "data.layout=THWC", "data.num_frames=null", "data.num_workers=0",
        "model=join", "model.encoder.filters=[4]", "model/recurrent=concat", "~trainer.callbacks.dashboard",
        "data.validation_share=0.0", "data.skip_broken=true",
    )  # fmt: skip


def test_data_that_have_changed_are_noticed_and_longer_clips_are_cut(tmp_path, caplog):
    caplog.set_level("INFO")
    root, words = skipping(tmp_path / "data")
    succeeds("train.py", *words, "trainer.max_epochs=1", cwd=tmp_path)
    run = run_folder(tmp_path)
    assert (run / "skipped_clips.txt").exists()
    np.save(root / "test/dark/0.npy", noise_clip(9))
    for use in (lambda: evaluate(run, "cpu"), lambda: predict(run, "test", None, None)):
        caplog.clear()
        use()
        assert "data: 1 clip changed, came or went since " in caplog.text
    np.save(root / "train/dark/9.npy", noise_clip(4, seed=9))
    resumed = script("train.py", "run=latest", "trainer.max_epochs=2", cwd=tmp_path)
    assert re.search("data: 2 clips changed, came or went since outputs/.* was trained, such as test/", resumed.stdout)
    assert not (run / "skipped_clips.txt").exists()
    assert [row["split"] for row in read_csv(run / "clips.csv") if row["path"] == "train/dark/9.npy"] == ["training"]
    for half in ("train", "test"):
        (root / half / "dark").rename(root / half / "another")
    line = "data: the classes are another, bright, but .* was trained on bright, dark; restore the data, or start a new"
    for use in (lambda: evaluate(run, "cpu"), lambda: predict(run, "test", None, None)):
        with pytest.raises(UserError, match=line):
            use()


def test_a_refused_resume_leaves_the_lists_of_samples_as_they_were(tmp_path):
    root, words = skipping(tmp_path / "data")
    succeeds("train.py", *words, "schedule=onecycle", "trainer.max_epochs=1", cwd=tmp_path)
    lists = [run_folder(tmp_path) / name for name in ("clips.csv", "skipped_clips.txt")]
    before = [file.read_bytes() for file in lists]
    np.save(root / "train/dark/9.npy", noise_clip(4, seed=9))
    line = refused("train.py", "run=latest", "trainer.max_epochs=3", cwd=tmp_path)
    assert line.startswith("trainer.max_epochs: ") and "this run's schedule was made for" in line
    assert [file.read_bytes() for file in lists] == before

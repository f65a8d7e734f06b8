"""Tests predict.py on a finished run: which images it reads, what it writes, and what it does with wrong files."""

import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quadrant_lstm import load_run, sequences
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import check_output, read_csv
from quadrant_lstm.run import predict as module
from quadrant_lstm.run.exported_program import inputs_of
from quadrant_lstm.run.load import load_classifier
from quadrant_lstm.run.predict import Sample, open_output, predict, predict_files, table_row
from quadrant_lstm.run.predictor import predictor_of_onnx, predictor_of_run
from quadrant_lstm.run_folder import read_results
from tests.folders import TINY
from tests.scripts import refused, script, succeeds


@pytest.fixture
def expected(finished_run, tiny):
    """The probabilities of the five images after each step."""
    network, cfg = load_run(finished_run)
    with torch.no_grad():
        frames = sequences(torch.from_numpy(tiny.test_images[:5]), cfg.data.orderings).float() / 255
        return network.logits_per_step(frames).softmax(2).numpy()


def predictor_of(run, **data):
    classifier, cfg = load_classifier(run)
    cfg.data.update(data)
    return predictor_of_run(classifier.network.eval(), cfg.data, classifier.spec)


def rows_of(output):
    if output.suffix == ".jsonl":
        return [json.loads(line) for line in output.read_text().splitlines()]
    return read_csv(output)


def test_the_probabilities_after_each_step_are_written(finished_run, files, expected, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", "quadrant_lstm")
    predictor, predicted = predictor_of(finished_run), expected[:, -1].argmax(1).tolist()
    predict_files(predictor, files, False, str(tmp_path / "table.csv"))
    *rows, blank = rows_of(tmp_path / "table.csv")
    steps = [[[float(row[f"step{step}_{label}"]) for label in range(3)] for row in rows] for step in (1, 2, 3)]
    last = [[float(row[str(label)]) for label in range(3)] for row in rows]
    assert np.allclose(np.stack([*steps, last], axis=1), expected, atol=1e-6)
    assert [int(row["prediction"]) for row in rows] == predicted
    assert set(blank.values()) == {blank["file"], ""}

    monkeypatch.setattr(module, "BATCH_SIZE", 2)
    predict_files(predictor, files, False, str(tmp_path / "lines.jsonl"))
    *rows, blank = rows_of(tmp_path / "lines.jsonl")
    assert np.allclose([row["probabilities"] for row in rows], expected, atol=1e-6)
    assert [row["prediction"] for row in rows] == predicted
    assert [row["file"] for row in rows] == list(map(str, files[:-1]))
    assert blank == {"file": str(files[-1]), "prediction": None, "probabilities": []}

    caplog.clear()
    predict_files(predictor, files, False, None)
    header, *rows, blank = caplog.messages
    first, confidence, percent, *_ = rows[0].split()
    assert (first, confidence, percent) == (str(predicted[0]), f"{100 * expected[0, -1].max():.1f}", "%")
    steps = [str(step) for step in expected[0].argmax(1)]
    assert rows[0][header.index("after") : header.index("file")].split() == steps
    assert blank.split() == ["blank", str(files[-1])]
    assert {line.index("images") for line in [*rows, blank]} == {rows[0].index("images")}


def test_ink_at_the_edge_is_noted_beside_the_prediction(finished_run, tmp_path, caplog, capsys):
    caplog.set_level("INFO", "quadrant_lstm")
    for name, box in {"inside": (10, 5, 14, 35), "cut": (10, 0, 14, 35)}.items():
        page = Image.new("L", (40, 40), 250)
        page.paste(30, box)
        page.save(tmp_path / f"{name}.png")
    files, predictor = [tmp_path / "inside.png", tmp_path / "cut.png"], predictor_of(finished_run, dataset="mnist")
    predict_files(predictor, files, None, None)
    _, inside, cut = caplog.messages
    assert inside.endswith("inside.png") and cut.endswith("cut.png (ink touches the edge of the picture)")
    predict_files(predictor, files, None, str(tmp_path / "x.csv"))
    note = f"{files[1]}: ink touches the edge of the picture; check its prediction."
    assert note in capsys.readouterr().err.splitlines()


def test_the_table_is_printed_alone(finished_run, files, tmp_path):
    network = ("model=join", "model/encoder=padded", "model.encoder.blocks=[[4]]")
    data = ("data=idx", f"data.root={finished_run.parents[2] / 'tiny'}")
    trained = script("train.py", *data, *network, *TINY[:3], "trainer.max_epochs=1", cwd=tmp_path)
    assert "every frame is encoded in full" in trained.stdout
    done = script("predict.py", "run=latest", "images=images", cwd=tmp_path)
    assert done.stdout.startswith("prediction")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1 + len(files))


def test_the_test_images_are_predicted_with_their_classes(finished_run, tiny, tmp_path, caplog):
    caplog.set_level("INFO", "quadrant_lstm")
    count = len(tiny.test_labels)
    for name in ("x.csv", "x.jsonl"):
        predict(finished_run, "test", None, str(tmp_path / name))
        rows = rows_of(tmp_path / name)
        assert [int(row["class"]) for row in rows] == tiny.test_labels.tolist()
        correct = sum(row["class"] == row["prediction"] for row in rows)
        assert correct / count == read_results(finished_run)["test/accuracy"]
    line = f"{correct:,} of {count:,} test samples are classified correctly: {100 * correct / count:.2f} %"
    assert line in caplog.messages


def test_files_are_cut_in_an_order_that_the_network_was_trained_in(finished_run):
    _, cfg = load_run(finished_run)
    cfg.data.orderings, cfg.data.train_orderings = [[1, 2, 3, 4]], [[4, 2, 1, 3], [3, 1, 2, 4]]
    spec = SequenceSpec((1, 14, 14), 4, ("0",))
    image = torch.rand(1, 1, 28, 28)
    assert torch.equal(inputs_of(cfg.data, spec).to_frames(image), sequences(image, [[4, 2, 1, 3]]))


def test_a_name_needs_no_quotes_of_hydra(finished_run, files, tmp_path):
    name = "~ back\\slash, a[1]{2}(3) it's=ü ${oc.env:HOME}.png"
    shutil.copy(files[0], tmp_path / name)
    succeeds("predict.py", f"run={finished_run}", f"images={name}", "output=x.csv", cwd=tmp_path)
    assert [row["file"] for row in rows_of(tmp_path / "x.csv")] == [name]


def test_strange_names_are_written(finished_run, files, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    predictor = predictor_of(finished_run)
    strange, control = (tmp_path / os.fsdecode(name) for name in (b"bad\xff.png", b"a\033[31m\nb.png"))
    for file in (strange, control):
        shutil.copy(files[0], file)
    predict_files(predictor, [strange], False, str(tmp_path / "x.csv"))
    assert r"bad\xff.png" in (tmp_path / "x.csv").read_text(encoding="utf-8")
    predict_files(predictor, [control], False, None)
    assert caplog.messages[-1].endswith("a?[31m?b.png")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{'x' * 300}\n{files[0]}\n".encode())))
    with pytest.raises(UserError, match="images: 1 of 2 files cannot be read"):
        predict(finished_run, "-", None, str(tmp_path / "out.csv"))
    assert len(rows_of(tmp_path / "out.csv")) == 1


def test_equal_predictions_after_many_steps_are_counted():
    steps = 20 * [[0.1, 0.9]] + [[0.9, 0.1]]
    assert table_row(Sample("a.csv", None, steps=steps), ["run", "walk"]).endswith("  walk x20 run x1  a.csv")
    assert table_row(Sample("a.csv", None, steps=steps[5:]), ["r", "w"]).endswith(f"{'  ' + 15 * 'w '}r  a.csv")


def test_names_steer_no_terminal_and_are_no_formulas(tmp_path):
    row = table_row(Sample("a.png", None, label=0, steps=[[0.1, 0.9]]), ["\033[31mred\n", "\rb"])
    assert row.split() == ["?b", "90.0", "%", "?[31mred?", "10.0", "%", "?b", "a.png,", "class", "?[31mred?"]
    with open_output(str(tmp_path / "x.csv"), 1, ["=1+1", "b"]) as write:
        write(Sample("@a.png", None, label=0, steps=[[0.9, 0.1]]))
    row = {"file": "'@a.png", "class": "'=1+1", "prediction": "'=1+1", "'=1+1": "0.9", "b": "0.1"}
    assert rows_of(tmp_path / "x.csv") == [row]


def test_no_two_columns_have_the_same_name(tmp_path):
    with open_output(str(tmp_path / "x.csv"), 1, ["class", "file"]) as write:
        write(Sample("a.png", None, label=0, steps=[[0.9, 0.1]]))
    row = {"file": "a.png", "class": "class", "prediction": "class"}
    assert rows_of(tmp_path / "x.csv") == [row | {"probability of class": "0.9", "probability of file": "0.1"}]


def test_an_older_output_stays_if_prediction_fails(finished_run, files, tmp_path, monkeypatch):
    (tmp_path / "x.csv").write_text("precious")
    monkeypatch.setattr(module, "classify", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict_files(predictor_of(finished_run), files, False, str(tmp_path / "x.csv"))
    assert (tmp_path / "x.csv").read_text() == "precious"


def test_the_other_files_are_predicted_if_one_cannot_be_read(finished_run, files, tmp_path):
    files[1].write_text("no image")
    done = script("predict.py", f"run={finished_run}", "images=images", "output=x.csv", cwd=tmp_path)
    assert done.returncode == 2
    first, last = done.stderr.splitlines()
    assert first.startswith("images/1.png: cannot be read as an image (")
    assert last == "images: 1 of 6 files cannot be read; they are named above."
    assert [row["file"] for row in rows_of(tmp_path / "x.csv")] == [f"images/{n}.png" for n in (0, 2, 3, 4, "blank")]


def test_a_single_file_that_cannot_be_read_costs_one_line(finished_run, files, tmp_path, capsys, caplog):
    files[0].write_text("no image")
    (tmp_path / "x.csv").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    caplog.set_level("INFO")
    for output in (None, str(tmp_path / "x.csv")):
        with pytest.raises(UserError, match=r"0.png: cannot be read as an image \("):
            predict_files(predictor_of(finished_run), files[:1], None, output)
    assert not capsys.readouterr().err and not caplog.messages
    assert (sorted(tmp_path.rglob("*")), (tmp_path / "x.csv").read_text()) == (before, "precious")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("x.txt", "output: x.txt does not end in .csv or .jsonl; write such a name."),
        ("no/x.csv", "output: the folder of no/x.csv does not exist; create it, or write another path."),
        ("file/x.csv", "output: the folder of file/x.csv is not a folder; write another path."),
        ("images.csv", "output: images.csv is a folder; write the path of a file."),
    ],
)
def test_an_output_that_cannot_be_written_is_reported_in_one_line(output, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images.csv").mkdir()
    Path("file").touch()
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        check_output(output, (".csv", ".jsonl"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("images=test", "invert=true"), "invert: is for files, but the test samples are used as they are; leave it o"),
        (("images=x", "model=no.onnx"), "model: a file reads neither a run nor its test data; leave out run= and imag"),
        (("images=x", "window=0s"), "window: '0s' is not seconds above 0, such as 2s or 0.5s or null; choose another"),
        (
            ("images=x", "window=2"),
            "window: 2 is not seconds above 0, such as 2s or 0.5s or null; choose another value",
        ),
        (
            ("images=test", "window=2s"),
            "window: 2s cuts videos, neither the test samples nor images with invert=; leav",
        ),
        (("images=x", "data.root=5"), "data.root: is for images=test; leave it out."),
        ((), "images: is missing; add images=FILE, a folder, a quoted glob, or images=test."),
    ],
)
def test_keys_that_do_not_fit_are_reported_in_one_line(words, message, finished_run):
    assert refused("predict.py", "run=latest", *words, cwd=finished_run.parents[2]).startswith(message)


# ONNX files


def test_an_onnx_file_predicts_without_a_run(exported, files, expected, tmp_path):
    pytest.importorskip("onnxruntime")
    words = (f"model={exported('onnx')}", "images=images", "invert=false", "output=x.jsonl")
    succeeds("predict.py", *words, cwd=tmp_path)
    *rows, blank = rows_of(tmp_path / "x.jsonl")
    assert np.allclose([row["probabilities"][0] for row in rows], expected[:, -1], atol=1e-5)
    assert blank["prediction"] is None


OTHER = "it is not an ONNX file of this project); give a file of export.py format=onnx."


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, OTHER),
        ({"config": "[]"}, OTHER),
        ({"config": "data: ${new_folder:made}"}, "data: ${new_folder:made} does not only name keys of this config"),
        ({"config": "data: {layout: '${z}'}\nz: ${new_folder:made}"}, "z: ${new_folder:made} does not only name keys"),
        ({"config": "data: {dataset: idx}", "class_names": '["a", "b"]'}, OTHER),
        ({"config": "z: idx\ndata: {dataset: '${z}'}", "class_names": '["a", "b", "c"]'}, None),
    ],
)
def test_the_metadata_of_a_program_are_only_read(metadata, reason, exported, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported("onnx"))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, tmp_path / "network.onnx")
    monkeypatch.chdir(tmp_path)
    if reason:
        with pytest.raises(UserError, match=re.escape(f"network.onnx cannot be read ({reason}")):
            predictor_of_onnx("network.onnx")
    else:
        assert predictor_of_onnx("network.onnx").classes == ["a", "b", "c"]
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


def test_a_file_that_is_no_program_is_refused(files, tmp_path):
    pytest.importorskip("onnxruntime")
    for file, reason in ((files[0], "it is not an ONNX file of this project"), (tmp_path / "no.onnx", "No such file")):
        with pytest.raises(UserError, match=f"^model: {file} cannot be read .{reason}"):
            predictor_of_onnx(str(file))

"""docs/figures/ makes the pictures and tables of the pages."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from docs.figures import __main__ as figures
from docs.figures import measured, pages, pictures
from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_csv
from quadrant_lstm.run.build import build_data
from quadrant_lstm.sweep.sweep_folder import Job
from tests.scripts import ROOT


def job(folder, **values) -> Job:
    """A finished one with an accuracy of its seed in %, or one that has not finished if its seed is 0."""
    folder.mkdir()
    provenance = {"git": {"commit": "0123456789", "changed": []}, "machine": {"processor": "a processor"}}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    if values["seed"]:
        results = {"test/accuracy": values["seed"] / 100, "parameters": 1200, "test/accuracy_step_1": 0.5}
        (folder / "results.json").write_text(json.dumps(results))
    overrides = (f"{key}={value}" for key, value in values.items())
    others = ("experiment=tiny", "hydra.launcher.n_jobs=2", "~trainer.callbacks.dashboard")
    return Job(0, folder, (*overrides, *others), {key: str(value) for key, value in values.items()})


def test_jobs_are_added_and_replace_those_with_the_same_values(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "MEASURED", tmp_path)
    measured.add("tiny", [job(tmp_path / str(seed), seed=seed, layer="lstm", units=4) for seed in (1, 0, 2)])
    part = job(tmp_path / "part", seed=1, layer="lstm", units=4)
    (tmp_path / "part/results.json").write_text('{"test/accuracy": 0.9}')
    measured.add("tiny", [part, job(tmp_path / "new", seed=3, layer="gru", units=4)])
    found = read_csv(tmp_path / "tiny.csv")
    assert [(row["layer"], row["seed"], row["test/accuracy"], row["test/accuracy_step_1"]) for row in found] == [
        ("lstm", "1", "0.9", ""), ("lstm", "2", "0.02", "0.5"), ("gru", "3", "0.03", "0.5")
    ]  # fmt: skip
    assert found[0]["commit"] == "0123456"
    with pytest.raises(UserError, match="sets seed, layer, but the keys of its table are seed, layer, units"):
        measured.add("tiny", [job(tmp_path / "other", seed=1, layer="lstm")])


def test_a_table_shows_means_and_differences_over_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "MEASURED", tmp_path)
    accuracies = {"gru": (0.88, 0.91, 0.83), "lstm": (0.90, 0.94, 0.90)}
    jobs = [f"{name},{seed},1200,{value},a1,one" for name in accuracies for seed, value in enumerate(accuracies[name])]
    columns = "model/layer,seed,parameters,test/accuracy,commit,processor"
    (tmp_path / "tiny.csv").write_text("\n".join([columns, *jobs]))
    means = "<!-- means name=tiny rows= columns=model/layer -->"
    differences = "<!-- differences name=tiny key=model/layer base=lstm rows= columns= -->"
    page = f"before\n\n{means}\n<!-- end -->\n\n{differences}\n<!-- end -->\n\nafter\n"
    filled = measured.fill(page)
    assert filled.startswith(f"before\n\n{means}\n\n|  | parameters | gru | lstm |\n|---|---|---|---|\n")
    # half the intervals are 4.303 / sqrt(3) times the standard deviations 0.040415, 0.023094 and 0.026458
    assert "|  | 1,200 | 87.33 (77.29 to 97.37) | 91.33 (85.60 to 97.07) |\n" in filled
    assert "mean of 3 seeds and its 95 % confidence interval. Measured on one; each job is a row, with its" in filled
    assert "| gru - lstm | -4.00 (-10.57 to +2.57) |\n" in filled
    assert filled.endswith("its 95 % confidence interval.\n\n<!-- end -->\n\nafter\n")
    assert measured.fill(filled) == filled
    with pytest.raises(UserError, match="^tiny: jobs of one cell differ in more than the seed; add a key"):
        measured.means("tiny", "", "")
    assert "|  | 1,200 | 89.33 (81.85 to 96.82) |\n" in measured.means("tiny", "", "", over="model/layer")
    values = {fold: [job.replace(",1200,0.", f",{fold},1200,0.{fold}") for job in jobs] for fold in (0, 1)}
    (tmp_path / "folds.csv").write_text("\n".join([columns.replace("seed", "seed,fold"), *values[0], *values[1]]))
    table = measured.differences("folds", "model/layer", "lstm", "", "", over="fold")  # a tenth of those above
    assert "| gru - lstm | -0.40 (-1.06 to +0.26) |" in table
    with (tmp_path / "tiny.csv").open("a") as file:
        file.write("\ngru,3,1200,0.9,a1,one\n")
    with pytest.raises(UserError, match="over=model/layer: some jobs have other values of it than others; finish"):
        measured.means("tiny", "", "", over="model/layer")


def test_the_tables_of_the_pages_are_those_of_the_measured_results():
    """They pin tables of seeds, of steps and of several keys, too."""
    for page in measured.DOCS.glob("*.md"):
        text = page.read_text()
        assert measured.fill(text) == text, "python -m docs.figures tables writes it again"
    assert measured.draw_means("motion", "model/recurrent", "data.label")[1:4] == b"PNG"
    assert measured.draw_steps(measured.read("scans"))[1:4] == b"PNG"


@pytest.mark.parametrize("page", ["README.md", "docs/join.md", "docs/keras.md"])
def test_a_mean_with_its_interval_is_that_of_the_page_about_results(page):
    means = r"(\d+\.\d+)(?: %| points)? \(([+-]?\d+\.\d+) to ([+-]?\d+\.\d+)"
    others = "\n".join(path.read_text() for path in measured.DOCS.glob("*.md") if path != ROOT / page)
    known, shown = re.findall(means, others), re.findall(means, (ROOT / page).read_text())
    assert shown
    for found in shown:
        decimals = len(found[0].partition(".")[2])
        rounded = {tuple(sorted(round(abs(float(each)) + 1e-9, decimals) for each in values)) for values in known}
        assert tuple(sorted(abs(float(each)) for each in found)) in rounded, found


def test_the_page_to_draw_on_is_what_the_templates_give_now():
    page = pages.PAGE.read_text()
    assert pages.with_current_templates(page) == page, "python -m docs.figures draw writes it again"


def test_the_epochs_of_a_finished_sweep_are_drawn(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,train/accuracy,val/accuracy\n1,0.5,0.8\n2,0.9,0.95\n")
    (tmp_path / "results.json").write_text('{"best_epoch": 2, "val/accuracy": 0.95}')
    assert pictures.draw_epochs(SimpleNamespace(jobs=[Job(0, tmp_path, (), {})]))[1:4] == b"PNG"


def test_the_mistakes_of_an_ensemble_are_counted(monkeypatch, capsys):
    """Network a misclassifies the images 0 and 3, b 1 and 3, and the mean of their probabilities 3."""
    of_class_1 = {"a": torch.tensor([0.6, 0.9, 0.9, 0.8]), "b": torch.tensor([0.1, 0.4, 0.8, 0.7])}
    data = SimpleNamespace(sha256=lambda: "same", spec=SimpleNamespace(class_names=("0", "1")))
    data.test_pictures = lambda indices: torch.zeros(len(indices), 1, 8, 8, dtype=torch.uint8)

    def run_test(run, accelerator):
        logits = torch.stack([1 - of_class_1[run], of_class_1[run]], dim=1).log()[:, None]
        return SimpleNamespace(test_logits=logits, test_labels=torch.tensor([0, 1, 1, 0])), data

    monkeypatch.setattr(pictures, "run_test", run_test)
    assert pictures.mistakes(["a", "b"])[1:4] == b"PNG"
    assert capsys.readouterr().out == (
        "test accuracy  75.00 %  (1 of 4 misclassified)\nmisclassified by all 2 networks: 1, by at least one: 3\n"
    )
    data.sha256 = iter(("one", "other")).__next__
    with pytest.raises(UserError, match="b: was tested on other samples than a; give runs with"):
        pictures.mistakes(["a", "b"])


@pytest.mark.parametrize("shift", [0.0, 14.0])
def test_predictions_change_with_augmented_copies_only(shift, finished_run, monkeypatch, capsys):
    built = []

    def augmented(cfg):
        data = build_data(cfg)
        data.augmentation = Augmentation(shift=shift)
        built.append(len(data.validation_indices))
        return data

    monkeypatch.setattr(pictures, "build_data", augmented)
    pictures.print_copies([finished_run])
    _, alone, *with_copies, _, _ = capsys.readouterr().out.splitlines()[1].split()
    results = json.loads((finished_run / "results.json").read_text())
    assert int(alone) == round(built[0] * (1 - results["val/accuracy"]))
    assert (set(with_copies) == {alone}) == (not shift)


def test_pictures_of_a_run_and_of_orderings_are_written(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "DOCS", tmp_path)
    run, mistakes = str(finished_run), str(tmp_path / "new/mistakes.png")
    for words in (["mistakes", mistakes, run], ["clip", run, "1"], ["join", run, "0", "1"], ["orderings"]):
        figures.main(words)
    written = {file.name for file in tmp_path.rglob("*") if file.is_file() and Image.open(file).format == "PNG"}
    assert written == {"mistakes.png", "clip.png", "join.png", "orderings.png", "named_orderings.png"}


def test_a_table_of_seeds_needs_three_jobs():
    with pytest.raises(UserError, match="experiment=units: a table of seeds needs three or more jobs that differ in "):
        measured.seeds("units")

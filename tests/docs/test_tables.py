"""The tables of docs/, which docs/tables.py makes of the results of sweeps."""

import csv
import dataclasses
import json

import pytest
from PIL import Image

from docs import measurements, tables
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.sweep_folder import Job, Mean
from quadrant_lstm.text import percent
from tests.scripts import ROOT

PROVENANCE = {"git": {"commit": "0123456789", "changed": []}, "machine": {"processor": "a processor"}}
PAGE = "before\n\n<!-- table tiny: rows=model/recurrent,data.size columns=data.label -->\n<!-- end -->\n\nafter\n"


@pytest.fixture(autouse=True)
def measured(tmp_path, monkeypatch):
    monkeypatch.setattr(measurements, "MEASURED", tmp_path / "measured")
    return tmp_path / "measured"


def job(folder, accuracy, label, recurrent, seed, parameters=1200) -> Job:
    """A finished one, or one that has not finished if its accuracy is None."""
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    if accuracy is not None:
        results = {"test/accuracy": accuracy, "parameters": parameters, "test/accuracy_step_1": 0.5}
        (folder / "results.json").write_text(json.dumps(results))
    values = {"data.label": label, "model/recurrent": recurrent, "data.size": "[4]", "seed": str(seed)}
    return Job(0, folder, tuple(f"{key}={value}" for key, value in values.items()), values)


def some_jobs(tmp_path):
    values = [
        (0.9, "digit", "lstm", 1), (0.92, "digit", "lstm", 2), (0.94, "digit", "lstm", 3), (None, "digit", "gru", 1),
        (0.5, "motion", "lstm", 1),
    ]  # fmt: skip
    return [job(tmp_path / str(number), *value) for number, value in enumerate(values)]


def test_a_table_shows_means_over_seeds_by_rows_and_columns(tmp_path):
    measurements.add("tiny", some_jobs(tmp_path))
    filled = tables.fill(PAGE)
    assert filled.startswith(
        "before\n\n<!-- table tiny: rows=model/recurrent,data.size columns=data.label -->\n\n| | par"
    )
    assert "| | parameters | label=digit | label=motion |\n" in filled
    assert "| lstm, size=[4] | 1,200 | 92.00 (87.03 to 96.97) | 50.00 |\n" in filled
    assert "mean of 1 to 3 seeds and its 95 % confidence interval, or single values of fewer than three." in filled
    assert "a processor, at commit 0123456;" in filled
    assert filled.endswith("<!-- end -->\n\nafter\n")
    assert tables.fill(filled) == filled
    picture = tables.draw("tiny", ["model/recurrent", "data.size"], ["data.label"])
    assert picture[1:4] == b"PNG"


def test_columns_of_steps_show_the_accuracy_after_each_but_the_last(tmp_path):
    steps = [{f"test/accuracy_step_{step + 1}": value for step, value in enumerate((0.5, 0.7, 0.9))}, {}]
    jobs = [job(tmp_path / str(number), 0.9, "digit", layer, 1) for number, layer in enumerate(("lstm", "concat"))]
    for finished, values in zip(jobs, steps, strict=True):
        results = {"test/accuracy": 0.9, "parameters": 1200} | values
        (finished.folder / "results.json").write_text(json.dumps(results))
    measurements.add("tiny", jobs)
    text = tables.table("tiny", ["model/recurrent"], ["steps"])
    assert "| | parameters | test accuracy | after step 1 | after step 2 |\n" in text
    assert "| lstm | 1,200 | 90.00 | 50.00 | 70.00 |\n" in text
    assert "| concat | 1,200 | 90.00 |  |  |\n" in text
    assert tables.draw("tiny", ["model/recurrent"], ["steps"])[1:4] == b"PNG"


def test_differences_are_those_of_jobs_with_the_same_seed(tmp_path):
    accuracies = {"gru": (0.88, 0.91, 0.83), "lstm": (0.90, 0.94, 0.90)}
    jobs = [
        job(tmp_path / layer / str(seed), accuracy, "digit", layer, seed)
        for layer, seeds in accuracies.items()
        for seed, accuracy in enumerate(seeds)
    ]
    measurements.add("tiny", jobs)
    text = tables.fill(
        "<!-- differences tiny: model/recurrent from=lstm rows=data.size columns=data.label -->\n<!-- end -->\n"
    )
    assert "| | label=digit |\n" in text
    # -0.02, -0.03 and -0.07; half the interval is 4.303 * 0.026458 / sqrt(3)
    assert "| gru - lstm, size=[4] | -4.00 (-10.57 to +2.57) |\n" in text
    assert "the differences of 3 pairs of jobs with the same seed" in text


def seeds_only(folder, accuracies) -> list[Job]:
    jobs = [job(folder / str(seed), accuracy, "digit", "lstm", seed) for seed, accuracy in enumerate(accuracies)]
    return [Job(0, each.folder, each.overrides[-1:], {"seed": each.swept["seed"]}) for each in jobs]


def test_a_table_of_seeds_shows_each_in_their_order_and_the_time_of_a_run(tmp_path):
    jobs = seeds_only(tmp_path, (0.9, 0.92, 0.94))[::-1]
    for finished, seconds in zip(jobs, (90, 60, 300), strict=True):
        results = finished.results() | {"seconds": seconds}
        (finished.folder / "results.json").write_text(json.dumps(results))
    measurements.add("tiny", jobs)
    text = tables.fill("<!-- seeds: tiny -->\n<!-- end -->\n")
    assert "| `experiment=tiny` | 90.00, 92.00, 94.00 | 92.00 (87.03 to 96.97) | 2.00 | 0:01:30 |\n" in text
    assert "with each of 3 seeds," in text
    assert (
        "a processor, at commit 0123456; each job is a row, with its commit, of [tiny.csv](measured/tiny.csv).\n"
        in text
    )


def test_a_table_of_seeds_needs_three_jobs_that_differ_in_the_seed_only(tmp_path):
    jobs = seeds_only(tmp_path, (0.9, 0.92))
    measurements.add("short", jobs)
    measurements.add("other", some_jobs(tmp_path / "other"))
    for name in ("short", "other"):
        with pytest.raises(UserError, match=f"experiment={name}: a table of seeds needs three or more jobs"):
            tables.fill(f"<!-- seeds: {name} -->\n<!-- end -->\n")


def test_a_caption_names_each_commit_and_processor_once():
    rows = [{"commit": commit, "processor": "one, AVX2"} for commit in ("a1", "a1", "b2")]
    assert measurements.measured_at(rows) == "Measured on one, AVX2, at commits a1 and b2"
    assert measurements.measured_at(rows[:2]) == "Measured on one, AVX2, at commit a1"
    assert measurements.measured_at([*rows, rows[0] | {"commit": "c3"}]).endswith("at commits a1, b2 and c3")


def test_a_job_that_is_measured_again_replaces_its_row(tmp_path, measured):
    measurements.add("tiny", some_jobs(tmp_path))
    measurements.add(
        "tiny", [job(tmp_path / "again", 0.8, "digit", "lstm", 2), job(tmp_path / "new", 0.7, "digit", "gru", 1)]
    )
    rows = list(csv.DictReader((measured / "tiny.csv").open()))
    assert [(row["model/recurrent"], row["seed"], row["test/accuracy"]) for row in rows] == [
        ("lstm", "1", "0.9"), ("lstm", "2", "0.8"), ("lstm", "3", "0.94"), ("lstm", "1", "0.5"), ("gru", "1", "0.7")
    ]  # fmt: skip
    assert rows[0]["test/accuracy_step_1"] == "0.5"


def test_a_part_of_the_experiment_can_be_measured_again(tmp_path, measured):
    measurements.add("tiny", some_jobs(tmp_path))
    part = job(tmp_path / "part", 0.6, "motion", "lstm", 1)
    del part.swept["data.label"], part.swept["data.size"]
    measurements.add("tiny", [part])
    rows = list(csv.DictReader((measured / "tiny.csv").open()))
    assert [(row["data.label"], row["test/accuracy"]) for row in rows] == [
        ("digit", "0.9"), ("digit", "0.92"), ("digit", "0.94"), ("motion", "0.6")
    ]  # fmt: skip


def test_a_job_with_other_keys_is_not_comparable(tmp_path):
    measurements.add("tiny", some_jobs(tmp_path))
    other = job(tmp_path / "other", 0.8, "digit", "lstm", 2)
    longer = dataclasses.replace(other, overrides=(*other.overrides, "trainer.max_epochs=9"))
    with pytest.raises(UserError, match=r"sets .*trainer.max_epochs.*, but the experiment's keys are data.label"):
        measurements.add("tiny", [longer])


def test_a_table_without_results_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"tiny.csv: is missing; first: python -m docs.tables SWEEP"):
        tables.fill(PAGE)


@pytest.fixture
def published(monkeypatch):
    monkeypatch.setattr(measurements, "MEASURED", tables.HERE / "measured")


def test_the_tables_of_the_pages_are_those_of_the_measured_results(published):
    found = 0
    for page in tables.HERE.glob("*.md"):
        text = page.read_text()
        found += len(tables.TABLE.findall(text))
        assert tables.fill(text) == text, "python -m docs.tables writes it again"
    assert found == len(list(measurements.MEASURED.glob("*.png")))
    assert all(Image.open(picture).width > 500 for picture in measurements.MEASURED.glob("*.png"))


def test_the_readme_and_the_recipes_state_the_measured_means(published):
    (found,) = tables.SEEDS.finditer((tables.HERE / "results.md").read_text())
    measured = {name: measurements.read(name) for name in tables.arguments(found)["experiments"]}
    measured["question"] = [row for row in measurements.read("units") if row["model.lstm_units"] == "5"]
    readme = (ROOT / "README.md").read_text()
    for name, rows in measured.items():
        mean = Mean(tuple(float(row["test/accuracy"]) for row in rows))
        assert measurements.table_row(f"`experiment={name}`", len(rows), mean) in readme
        low, high = (f"{100 * value:.2f}" for value in (min(mean.values), max(mean.values)))
        expected = f"# expected: {percent(mean.mean)} test accuracy ({low} to {high} with seeds 1 to {len(rows)})\n"
        assert expected in (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text()

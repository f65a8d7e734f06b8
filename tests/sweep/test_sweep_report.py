import itertools
import re
from pathlib import Path

import pytest

from quadrant_lstm.files import write_json
from quadrant_lstm.plotting import as_svg
from quadrant_lstm.sweep.plots import draw_curves, draw_effects, draw_search, drawable
from quadrant_lstm.sweep.report import changed_sample, csv_table, report_at_end
from quadrant_lstm.sweep.sweep_folder import Mean, make_jobs, ranked_groups, readable

RESULTS = {
    "monitor": "val/accuracy", "test/loss": 0.1, "best_epoch": 1, "epochs": 2, "seconds": 3.0, "parameters": 4,
    "samples_per_second": 5.0,
}  # fmt: skip


def finish(job, **results) -> None:
    write_json(job.folder / "results.json", RESULTS | {"val/accuracy": 0.5, "test/accuracy": 0.5} | results)


def report_of(folder: Path, task: list[str], hydra: list[str], sweeper: dict) -> str:
    """Returns the text of the report that a sweep with these overrides writes at its end."""
    content = {"sweeper": sweeper, "runtime": {"config_sources": []}, "overrides": {"task": task, "hydra": hydra}}
    write_json(folder / "multirun.yaml", {"hydra": content})  # JSON is YAML
    with report_at_end(folder):
        pass
    return " ".join((folder / "sweep.html").read_text().split())


def test_an_interval_follows_students_t():
    five = Mean((0.1, 0.2, 0.3, 0.4, 0.5))
    half = 2.776 * (0.025 / 5) ** 0.5  # 0.025 is the variance
    assert five.interval == pytest.approx((0.3 - half, 0.3 + half))
    assert str(Mean((0.5, 0.51, 0.52))) == "51.00 % (48.52 to 53.48)"
    assert str(Mean((0.2582, 0.2808))) == "25.82 %, 28.08 %"  # fewer than three runs show their values
    assert Mean((0.999, 0.99, 1.0)).interval[1] == 1.0
    assert Mean((0.0, 0.01, 0.001)).interval[0] == 0.0


@pytest.fixture
def four_jobs(tmp_path):
    overrides = [[f"a={a}", "b=same", f"seed={seed}"] for a in (1, 2) for seed in (1, 2)]
    found = make_jobs(tmp_path, overrides, range(4))
    for job, accuracy in zip(found, (0.5, 0.7, 0.8, None), strict=True):
        if accuracy:
            finish(job, **{"val/accuracy": accuracy, "test/accuracy": accuracy})
    found[3].record_error("no memory")
    return found


def test_the_table_ranks_groups_by_their_mean_over_seeds_and_has_one_row_per_job_with_its_error(four_jobs):
    groups = ranked_groups(four_jobs)
    assert [(group.swept, group.mean("val/accuracy").mean) for group in groups] == [
        ({"a": "2"}, 0.8), ({"a": "1"}, pytest.approx(0.6)),
    ]  # fmt: skip
    header, *rows = [line.split(",") for line in csv_table(groups).splitlines()]
    assert header[:4] == ["rank", "job", "a", "seed"]  # b is the same in all jobs
    assert [" ".join(row[:4]) for row in rows] == ["1 2 2 1", "1 3 2 2", "2 0 1 1", "2 1 1 2"]
    assert rows[1][-1] == "no memory"


@pytest.mark.parametrize(
    ("monitors", "ranking"),
    [(("val/loss",), "1 0 2"), (("val/macro_f1",), "0 2 1"), (("val/loss", "val/macro_f1", "val/loss"), "2 1 0")],
)
def test_groups_are_ranked_by_the_metric_that_all_jobs_monitor_or_else_by_accuracy(monitors, ranking, tmp_path):
    jobs = make_jobs(tmp_path, [["a=0"], ["a=1"], ["a=2"]])
    for number, values in enumerate(((0.6, 0.3, 0.9), (0.7, 0.2, 0.4), (0.8, 0.7, 0.5))):
        results = dict(zip(("val/accuracy", "val/loss", "val/macro_f1"), values, strict=True))
        finish(jobs[number], monitor=monitors[number % len(monitors)], **results)
    groups = ranked_groups(jobs)
    assert " ".join(group.swept["a"] for group in groups) == ranking
    assert {"val/accuracy", "val/loss", "val/macro_f1"} <= set(csv_table(groups).splitlines()[0].split(","))
    page = report_of(tmp_path, ["a=0,1,2"], [], {})
    shown = monitors[0] if len(monitors) == 1 else "validation accuracy"
    assert f"Rows are ranked by the {shown} of the epoch that is kept" in page
    best = {"val/loss": "0.2000", "val/macro_f1": "0.9000"}.get(shown)
    assert not best or f'<td data-column="{shown}" class="whole">{best}' in page


@pytest.mark.parametrize("key", ["data.fold", "data.validation_seed"])
def test_folds_other_validation_samples_and_seeds_share_a_group(key, tmp_path):
    overrides = [[f"a={a}", f"{key}={value}", f"seed={seed}"] for a in (1, 2) for value in (0, 1) for seed in (1, 2)]
    groups = ranked_groups(make_jobs(tmp_path, overrides))
    assert {str(group): len(group.jobs) for group in groups} == {"a=1": 4, "a=2": 4}
    assert list(map(str, ranked_groups(make_jobs(tmp_path, overrides[:4])))) == ["all jobs"]


@pytest.mark.parametrize(
    ("key", "second", "changed"),
    [
        ("data.test_fold", "a,x,1 b,y,2", None),
        ("data.test_fold", "a,x,1 b,y,3", "b"),
        ("data.test_fold", "a,x,1 b,x,2", "b"),
        ("data.test_fold", "a,x,1 b,y,2 c,y,4", "c"),
        ("data.test_fold", "a,x,1 b,y,2 b from 3 on,y,5", None),  # its end is for the test in one fold
        ("data.num_frames", "a,x,1", None),  # other data, perhaps
        ("seed", "a,x,1", "b"),
    ],
)
def test_a_sample_that_changed_between_the_jobs_is_named(key, second, changed, tmp_path):
    jobs = make_jobs(tmp_path, [[f"{key}=0"], [f"{key}=1"]])
    for job, rows in zip(jobs, ("a,x,1 b,y,2", second), strict=True):
        finish(job)
        rows = re.sub(r" (?=\w,)", "\n", rows).replace(" b from", "\nb from")
        (job.folder / "clips.csv").write_text(f"path,class,sha256\n{rows}\n")
    assert changed_sample(jobs) == changed


@pytest.mark.parametrize("other", ["seed", "data.fold"])
def test_the_interval_over_test_folds_is_that_of_their_means_over_seeds_or_nested_folds(other, tmp_path):
    pairs = itertools.product((0, 1, 2), (0, 1))
    jobs = make_jobs(tmp_path, [[f"data.test_fold={fold}", f"{other}={number}"] for fold, number in pairs])
    for job, accuracy in zip(jobs, (0.1, 0.3, 0.4, 0.4, 0.5, 0.7), strict=True):
        finish(job, **{"test/accuracy": accuracy})
    (group,) = ranked_groups(jobs)
    assert group.mean("test/accuracy").values == pytest.approx((0.2, 0.4, 0.6))


def test_trials_that_repeat_the_same_values_are_one_value_of_the_mean(tmp_path):
    jobs = make_jobs(tmp_path, [["units=8"], ["units=4"], ["units=8"], ["units=8"]])
    for job in jobs:
        finish(job)
    assert {str(group): str(group.mean("test/accuracy")) for group in ranked_groups(jobs)} == {
        "units=8": "50.00 %", "units=4": "50.00 %",
    }  # fmt: skip


def test_the_progress_of_a_search_is_that_of_its_metric(tmp_path):
    jobs = make_jobs(tmp_path, [["lr=1"], ["lr=2"]])
    for job, loss in zip(jobs, (0.5, 0.2), strict=True):
        write_json(job.folder / "results.json", {"val/accuracy": 0.9, "monitor": "val/loss", "val/loss": loss})
    expected = {"val/loss": ("val/loss", [0.5, 0.2]), "val/accuracy": ("validation error, %", [10, 10])}
    for metric, (label, values) in expected.items():
        (axes,) = draw_search(jobs, metric).axes
        assert axes.get_ylabel() == label
        assert axes.lines[0].get_ydata().tolist() == pytest.approx(values)


def test_a_swept_key_that_is_a_result_has_one_column(four_jobs, tmp_path):
    jobs = make_jobs(tmp_path, [["keep=best"], ["keep=last"]])
    for job in jobs:
        finish(job, keep=job.swept["keep"])
    assert csv_table(ranked_groups(jobs)).partition("\n")[0].split(",").count("keep") == 1


EVERY = list(itertools.permutations((1, 2, 3, 4)))


def as_override(orderings):
    return str([list(ordering) for ordering in orderings]).replace(" ", "")


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0.0031622776601683794", "0.003162"), ("0.25", "0.25"), ("[32,32]", "[32,32]"), ("[[16],[32]]", "[[16],[32]]"),
     ("[[1,2,3,4]]", "1234"), ("[[1,2,3,4],[4,3,2,1]]", "1234 4321"), (as_override(EVERY), "24 orderings")],
)  # fmt: skip
def test_long_values_are_shortened(value, shown):
    assert readable(value) == shown


@pytest.mark.filterwarnings("error")  # matplotlib warns if labels leave no room for the axes
def test_the_pictures_show_any_value(tmp_path):
    roots, numbers = ["a$_$b", "$5_$10", "\u732b"] * 3, range(9)
    orderings = [as_override(EVERY[: (1, 4, 12, 20)[number % 4]]) for number in numbers]
    words = [[f"root={roots[n]}", f"lr={10.0**-n}", f"orderings={orderings[n]}"] for n in numbers]
    found = make_jobs(tmp_path, words)
    for job in found:
        finish(job)
        (job.folder / "metrics.csv").write_text("epoch,val/accuracy\n1,0.4\n2,0.5\n")
    effects = draw_effects(found)
    labels, ticks, ordered = ([tick.get_text() for tick in figure.axes[0].get_xticklabels()] for figure in effects)
    assert labels[:2] == ["$5_$10", "a$_$b"] and labels[2] in ("\u732b", r"\u732b")
    assert drawable("a\U000e1000") == r"a\U000e1000"  # no font has this character
    assert "0.0001" in ticks and not [tick for tick in ticks if "$" in tick]
    assert set(ordered) == {"1234", "1234 1243 1324 1342", "12 orderings", "20 orderings"}
    assert all(map(as_svg, [*effects, draw_curves(ranked_groups(found))]))


def test_a_search_without_a_started_job_has_a_report(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    page = report_of(folder, ["seed=1"], ["hydra/sweeper=optuna"], {"n_trials": 5, "sampler": {}, "pruner": {}})
    assert "0 of 5 jobs have finished" in page
    assert "python train.py -m seed=1 hydra/sweeper=optuna" in page
    assert f"python train.py &#39;sweep={folder}&#39;" in page

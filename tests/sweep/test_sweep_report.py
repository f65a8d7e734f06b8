import json

import pytest

from quadrant_lstm.sweep.groups import grouped, spread
from quadrant_lstm.sweep.jobs import jobs
from quadrant_lstm.sweep.report import table

RESULTS = {"test/loss": 0.1, "best_epoch": 1, "epochs": 2, "seconds": 3.0, "parameters": 4, "samples_per_second": 5.0}


def test_an_interval_is_students():
    two = spread([0.9, 1.0])
    assert two.mean == pytest.approx(0.95)
    assert two.half == pytest.approx(12.706 * 0.05)  # the standard deviation over the root of 2 is 0.05
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]).half == pytest.approx(2.776 * (2.5 / 5) ** 0.5)
    assert spread([0.5]).half is None
    assert str(spread([0.5])) == "50.00%"


@pytest.fixture
def four_jobs(tmp_path):
    found = jobs(tmp_path, [[f"a={a}", "b=same", f"seed={seed}"] for a in (1, 2) for seed in (1, 2)])
    for job, accuracy in zip(found, (0.5, 0.7, 0.8, None), strict=True):
        job.folder.mkdir()
        if accuracy:
            results = RESULTS | {"val/accuracy": accuracy, "test/accuracy": accuracy}
            (job.folder / "results.json").write_text(json.dumps(results))
    (found[3].folder / "train.log").write_text("12:00 INFO begins\n12:01 ERROR no memory\n")
    return found


def test_only_what_differs_is_swept(four_jobs):
    assert [job.swept for job in four_jobs] == [{"a": str(a), "seed": str(seed)} for a in (1, 2) for seed in (1, 2)]


def test_groups_are_ranked_by_their_mean_over_seeds(four_jobs):
    groups = grouped(four_jobs)
    assert [group.swept for group in groups] == [{"a": "2"}, {"a": "1"}]
    assert [group.spread("val/accuracy").mean for group in groups] == pytest.approx([0.8, 0.6])


def test_the_table_has_a_row_a_job_with_its_error(four_jobs):
    header, *rows = [line.split(",") for line in table(grouped(four_jobs)).splitlines()]
    assert header[:4] == ["rank", "job", "a", "seed"]
    assert [row[:4] for row in rows] == [
        ["1", "2", "2", "1"],
        ["1", "3", "2", "2"],
        ["2", "0", "1", "1"],
        ["2", "1", "1", "2"],
    ]
    assert rows[1][-1] == "no memory"

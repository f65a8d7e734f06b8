"""The scripts that make the pictures and tables of docs/."""

import shutil
from types import SimpleNamespace

import pytest
from PIL import Image

from docs import epochs, mistakes
from docs.draw import PAGE, with_current_templates
from quadrant_lstm.errors import UserError
from quadrant_lstm.run.load import run_test
from quadrant_lstm.run_folder import CONFIG
from quadrant_lstm.sweep.sweep_folder import Job
from quadrant_lstm.text import percent
from tests.scripts import script, train_tiny


def test_the_mistakes_of_a_run_are_drawn_into_a_file(finished_run, tmp_path):
    done = script("docs/mistakes.py", finished_run, "--out", tmp_path / "new" / "wrong.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "new" / "wrong.png").format == "PNG"


def test_several_runs_are_tested_by_the_mean_of_their_probabilities(finished_run, tmp_path):
    train_tiny(tmp_path, "optimizer.lr=0.1", "hydra.run.dir=other")  # its predictions differ
    done = script("docs/mistakes.py", finished_run, tmp_path / "other", "--out", tmp_path / "wrong.png", cwd=tmp_path)
    classifiers = [run_test(run, "cpu")[0] for run in (finished_run, tmp_path / "other")]
    mean = sum(each.test_logits[:, -1].softmax(1) for each in classifiers) / 2
    wrong = int((mean.argmax(1) != classifiers[0].test_labels).sum())
    assert f"test accuracy  {percent(1 - wrong / 70)}  ({wrong} of 70 misclassified)\n" in done.stdout
    first, second = ({*misclassified(each)} for each in classifiers)
    assert first != second
    assert f"by all 2 networks: {len(first & second)}, by at least one: {len(first | second)}\n" in done.stdout


def test_runs_that_were_tested_on_other_samples_are_no_ensemble(finished_run, tmp_path):
    fewer = shutil.copytree(finished_run, tmp_path / "fewer")
    text = (fewer / CONFIG).read_text()
    (fewer / CONFIG).write_text(text.replace("limit_test_batches: null", "limit_test_batches: 2"))
    with pytest.raises(UserError, match=f"fewer: was tested on other samples than {finished_run}; give runs with"):
        mistakes.main([finished_run, fewer], tmp_path / "wrong.png")


def misclassified(classifier) -> list[int]:
    return (classifier.test_logits[:, -1].argmax(1) != classifier.test_labels).nonzero().flatten().tolist()


def test_the_orderings_are_drawn_into_a_file(tmp_path):
    assert script("docs/orderings.py", "orderings.png", cwd=tmp_path).returncode == 0
    assert Image.open(tmp_path / "orderings.png").format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("docs/mistakes.py", "nowhere"), "run: nowhere is not a run folder"),
        (("docs/epochs.py", "nowhere"), "sweep: nowhere has no multirun.yaml; give a folder"),
        (("src/quadrant_lstm/benchmark/__main__.py",), "benchmark: there is no conf/train.yaml here"),
        (
            ("src/quadrant_lstm/benchmark/__main__.py", "--rounds=0"),
            "--rounds: 0 is not a whole number of at least 1; ",
        ),
    ],
)
def test_a_missing_input_is_reported_in_one_line(arguments, line, tmp_path):
    done = script(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n"), done.stderr[: len(line)]) == (2, 1, line)
    assert not list(tmp_path.iterdir())


def test_the_page_to_draw_on_is_what_the_templates_give_now():
    page = PAGE.read_text()
    assert with_current_templates(page) == page, "python -m docs.draw writes it again"


def test_the_epochs_of_a_finished_sweep_are_drawn(tmp_path):
    job = tmp_path / "0"
    job.mkdir()
    (job / "metrics.csv").write_text("epoch,train/accuracy,val/accuracy\n1,0.5,0.8\n2,0.9,0.95\n")
    sweep = SimpleNamespace(folder=tmp_path, jobs=[Job(0, job, ("seed=1",), {"seed": "1"})])
    with pytest.raises(UserError, match=r"0: has not finished; first: python train\.py sweep="):
        epochs.draw(sweep)
    (job / "results.json").write_text('{"best_epoch": 2}')
    with pytest.raises(UserError, match="0: has no validation images; give another sweep"):
        epochs.draw(sweep)
    (job / "results.json").write_text('{"best_epoch": 2, "val/accuracy": 0.95}')
    assert epochs.draw(sweep)[1:4] == b"PNG"

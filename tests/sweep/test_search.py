"""Runs searches (train.py -m hydra/sweeper=optuna) as processes."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import optuna
import pytest
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import QMCSampler
from optuna.trial import TrialState

from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import read_rows
from quadrant_lstm.sweep.pruning import Pruning
from quadrant_lstm.sweep.search import Search, Space, distribution, storage
from tests.folders import TINY, remaining_processes, sweep_folder, tiny_data, write_idx_folder
from tests.scripts import Script, refused, script, succeeds, waiting_after

SEARCH = ("-m", "data=idx", "data.root=tiny", *TINY, "hydra/sweeper=optuna",
          "optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.lstm_units=2,4",
          "hydra.sweeper.pruner.n_startup_trials=1", "hydra.sweeper.pruner.n_warmup_steps=1",
          "trainer.max_epochs=3")  # fmt: skip
SPACE: Space = {"a": IntDistribution(0, 2), "b": IntDistribution(0, 2)}


def points_of(sampler: str, folder: Path, space: Space = SPACE, **arguments: object) -> list[dict[str, int]]:
    search = Search(folder, space, [], 6, {"_target_": f"optuna.samplers.{sampler}", **arguments}, "val/accuracy")
    return [{key: int(value) for key, value in job.swept.items()} for job in search.jobs()]


def load_study(sweep: Path) -> optuna.Study:
    return optuna.load_study(study_name="sweep", storage=storage(sweep))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=interval(0.1,1)", FloatDistribution(0.1, 1)),
        ("a=tag(log,interval(0.001,1))", FloatDistribution(0.001, 1, log=True)),
        ("a=int(interval(1,8))", IntDistribution(1, 8)),
        ("a=range(2,11,4)", IntDistribution(2, 10, step=4)),
        ("a=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("a=5,16,[8,8]", CategoricalDistribution(["5", "16", "[8,8]"])),
        ("optimizer=choice(adam,sgd)", CategoricalDistribution(["adam", "sgd"])),
        ("a=tag(log,interval(0,1))", "a=tag(log,interval(0,1)): cannot be searched ("),
        ("a=range(3,3)", "cannot be searched (list index out of range); give a range from low to high."),
        ("a=tag(log,choice(1,2))", "the only tag is log, of an interval; write tag(log,interval(A,B))."),
    ],
)
def test_a_hydra_range_becomes_an_optuna_distribution(text, expected):
    (override,) = OverridesParser.create().parse_overrides([text])
    if isinstance(expected, str):
        with pytest.raises(UserError, match=re.escape(expected)):
            distribution(override)
    else:
        assert distribution(override) == expected


def test_a_quasi_random_search_chooses_the_sequence_of_one_sampler(tmp_path):
    study = optuna.create_study(sampler=QMCSampler(seed=3, scramble=True))
    expected = [study.ask(SPACE).params for _ in range(6)]
    assert points_of("QMCSampler", tmp_path, seed=3, scramble=True) == expected


def test_a_search_of_all_points_and_one_of_other_ranges_are_refused(tmp_path):
    with pytest.raises(UserError, match="GridSampler tries every point, as a sweep does; leave out hydra/sweeper=opt"):
        points_of("GridSampler", tmp_path)
    points_of("TPESampler", tmp_path)
    with pytest.raises(UserError, match="study.db has trials of other keys or ranges; restore it, or start"):
        points_of("TPESampler", tmp_path, {"a": IntDistribution(0, 2)})


def searched_in(cwd: Path, num_trials: int, before: str = "") -> Script:
    write_idx_folder(cwd / "tiny")
    return Script("train.py", *SEARCH, f"hydra.sweeper.n_trials={num_trials}", cwd=cwd, before=before)


@pytest.fixture(scope="session")
def searched(shared_folder):
    """The working directory of a finished search of three trials, which tests must not change."""
    cwd = shared_folder / "searched"
    with FileLock(f"{cwd}.lock"):
        if not cwd.exists():
            done = searched_in(cwd, 3).wait()
            assert done.returncode == 0, done.stderr
    return cwd


def resume_killed_search(cwd: Path, killed_at: int, num_trials: int) -> Path:
    """Kills a search after the first epoch of a trial, and resumes it with one more trial. Returns its folder."""
    process = searched_in(cwd, num_trials - 1, before=waiting_after(1, str(killed_at)))
    process.wait_for(f"outputs/sweeps/*/*/{killed_at}/checkpoints/last.ckpt")
    process.kill()
    sweep = sweep_folder(cwd)
    trials = load_study(sweep).trials
    assert len(trials) == killed_at + 1
    assert trials[killed_at].state == TrialState.RUNNING
    before = {file: file.stat().st_mtime_ns for n in range(killed_at) for file in (sweep / str(n)).rglob("*")}
    again = succeeds("train.py", "sweep=latest", f"hydra.sweeper.n_trials={num_trials}", cwd=cwd)
    assert f"job {killed_at}  optimizer.lr=" in again.stdout
    assert f"job {killed_at - 1}  " not in again.stdout
    assert f"({num_trials} of {num_trials} jobs finished)" in again.stdout
    assert all(file.stat().st_mtime_ns == written for file, written in before.items())
    assert sorted(int(folder.name) for folder in sweep.iterdir() if folder.name.isdecimal()) == list(range(num_trials))
    return sweep


def values(sweep: Path) -> list[tuple[object, ...]]:
    return [(trial.params, trial.state, trial.value) for trial in load_study(sweep).trials]


def test_a_killed_search_resumes_with_the_trials_of_an_uninterrupted_one(searched, tmp_path):
    sweep = resume_killed_search(tmp_path, 1, 3)
    assert values(sweep) == values(sweep_folder(searched))
    found = load_study(sweep).trials
    assert {TrialState.PRUNED, TrialState.COMPLETE} == {trial.state for trial in found}
    pruned = next(trial for trial in found if trial.state == TrialState.PRUNED)
    assert (sweep / str(pruned.number) / "metrics.csv").read_text().count("\n") - 1 == max(pruned.intermediate_values)
    assert (sweep / "sweep.html").read_text().count("<svg") == 4  # two keys, the curves, the progress
    plan = script("train.py", "sweep=latest", "plan=true", cwd=tmp_path)
    assert plan.stdout == "no job is left to run; nothing was started\n", plan.stderr


@pytest.mark.reliability
@pytest.mark.timeout(600)
def test_a_search_killed_at_trial_7_has_the_same_20_trials(tmp_path):
    assert searched_in(tmp_path / "whole", 20).wait(600).returncode == 0
    sweep = resume_killed_search(tmp_path / "killed", 7, 20)
    assert values(sweep) == values(sweep_folder(tmp_path / "whole"))


def test_a_search_is_not_resumed_without_its_study_or_with_another_sampler(searched, tmp_path):
    cwd = shutil.copytree(searched, tmp_path / "copy")
    sweep = sweep_folder(cwd)
    kept = refused("train.py", "sweep=latest", "hydra.sweeper.sampler.seed=4", cwd=cwd)
    assert kept.startswith("hydra.sweeper.sampler.seed=4: a search keeps its sampler; leave it out")
    before = {file: file.read_bytes() for file in sweep.rglob("*") if file.is_file()}
    (sweep / "study.db").write_bytes(b"")
    line = "study.db does not hold the values that trial 0 was trained with; restore it, or start a new search."
    assert line in refused("train.py", "sweep=latest", cwd=cwd)
    assert all(file.read_bytes() == content for file, content in before.items() if file.name != "study.db")


def test_a_damaged_study_is_one_line(tmp_path):
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(UserError) as error:
        points_of("TPESampler", tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/study.db: cannot be used (file is not a database); close other pro")
    assert str(error.value).endswith(f"resume with sweep={tmp_path}.")


def test_a_trial_that_fails_is_recorded_and_the_search_for_the_lowest_loss_continues(tmp_path):
    """A learning rate of 1e30 makes the loss infinite, and model=deep has no model.filters."""
    few = ("hydra.sweeper.n_trials=4", "hydra.sweeper.sampler.seed=7", "trainer.max_epochs=2", "optimizer=sgd")
    swept = ("hydra/sweeper=optuna", "monitor=val/loss", "optimizer.lr=0.1,1e30", "model=deep,cnn_lstm")
    done = succeeds("train.py", "-m", *tiny_data(tmp_path), *TINY, *few, *swept, cwd=tmp_path)
    sweep = sweep_folder(tmp_path)
    study = load_study(sweep)
    trials = study.trials
    assert {(trial.params["model"], trial.params["optimizer.lr"]): trial.state for trial in trials} == {
        ("cnn_lstm", "0.1"): TrialState.COMPLETE, ("cnn_lstm", "1e+30"): TrialState.FAIL,
        ("deep", "1e+30"): TrialState.FAIL,
    }  # fmt: skip
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    (complete,) = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    losses = [float(row["val/loss"]) for row in read_rows(sweep / str(complete.number) / "metrics.csv")]
    assert list(complete.intermediate_values.values()) == pytest.approx(losses, rel=1e-5)
    assert complete.value == min(losses)
    assert "failed         " in done.stdout
    assert "(optimizer.lr=1e+30 model=cnn_lstm): train: the loss is nan in epoch 1, at training step 2" in done.stdout
    assert "model=deep  model.filters: there is no such key; known keys: model." in done.stdout
    assert "resume with" not in done.stdout


@pytest.mark.parametrize("swept", ["monitor=val/loss,val/accuracy", "seed=1,2", "data.fold=0,1", "++data.fold=0,1"])
def test_what_would_differ_between_trials_that_are_compared_is_refused(swept, tmp_path):
    key = swept.partition("=")[0].lstrip("+")
    rule = f"{key}: {swept} would differ between trials that are compared; write one value.\n"
    assert refused("train.py", *SEARCH, swept, cwd=tmp_path) == rule


@pytest.mark.parametrize(("max_epochs", "pruned"), [(4, True), (3, False)])
def test_a_trial_is_not_pruned_after_its_last_epoch(max_epochs, pruned):
    callback, reported = Pruning(), SimpleNamespace(intermediate_values={3: 0.5})
    callback.trial = SimpleNamespace(study=SimpleNamespace(trials=[reported]), number=0, should_prune=lambda: True)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=max_epochs, logger=False, enable_checkpointing=False)
    callback.decide(trainer, epochs=3)
    assert trainer.should_stop == pruned


def test_a_search_on_two_processes_has_one_folder_per_trial_and_prunes_in_both(tmp_path):
    write_idx_folder(tmp_path / "tiny")
    two = ("trainer.accelerator=cpu", "trainer.devices=2", "hydra.sweeper.n_trials=3")
    succeeds("train.py", *SEARCH, *two, cwd=tmp_path)
    sweep = sweep_folder(tmp_path)
    trials = load_study(sweep).trials
    assert sorted(int(folder.name) for folder in sweep.iterdir() if folder.name.isdecimal()) == list(range(3))
    assert TrialState.PRUNED in {trial.state for trial in trials}
    for trial in trials:
        config = (sweep / str(trial.number) / ".hydra/config.yaml").read_text()
        assert f"lr: {trial.params['optimizer.lr']}" in config
        assert "devices: 2" in config
    assert not remaining_processes(tmp_path)


def test_the_search_experiment_is_valid(tmp_path):
    words = ("experiment=search", "hydra.sweeper.n_trials=1", *tiny_data(tmp_path), *TINY)
    done = succeeds("train.py", "-m", *words, "plan=true", cwd=tmp_path)
    header, *_, last = done.stdout.splitlines()
    assert header.split()[:3] == ["job", "optimizer.lr", "model.lstm_units"]
    assert last.startswith("1 job, about ")

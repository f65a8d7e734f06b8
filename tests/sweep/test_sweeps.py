"""Tests which jobs a command has, and runs sweeps (train.py -m) as processes."""

import os
import signal
import statistics
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from hydra_plugins.quadrants.sweepers import GridSweeper
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_csv, read_json
from quadrant_lstm.run_folder import last_epoch
from quadrant_lstm.sweep import plan
from quadrant_lstm.sweep.sweep_folder import Sweep, combinations, find_sweep, make_jobs
from tests.configs import composed_config
from tests.folders import TINY, children, sweep_folder, tiny_data, wait_until_no_process_remains, write_idx_folder
from tests.scripts import ROOT, Script, importing_from, refused, script, succeeds, waiting_after

DATA = ("data=idx", "data.root=tiny", *TINY)


def recorded(*words: str, **params: str) -> list[str]:
    """Returns the overrides that a sweep with these words and hydra.sweeper.params records."""
    sweeper = GridSweeper(OmegaConf.create(params), plan=False)
    loader = ConfigLoaderImpl(create_config_search_path(str(ROOT / "conf")))
    sweeper.resumed, sweeper.hydra_context = None, SimpleNamespace(config_loader=loader)
    return [str(override.input_line) for override in sweeper.all_overrides(words)]


def test_shuffled_values_and_those_of_a_glob_are_recorded_in_their_order():
    shuffled, found = recorded("seed=shuffle(1,2,3,4)", "schedule=glob(c*)")
    assert sorted(shuffled.removeprefix("seed=").split(",")) == ["1", "2", "3", "4"]
    assert found == "schedule=constant,cosine"


def test_a_sweep_without_values_is_refused():
    with pytest.raises(UserError, match=r"seed=range\(1,1\): has no values, so there is no job to run; give some."):
        recorded("seed=range(1,1)")


def test_of_a_key_that_is_given_twice_the_last_value_counts():
    overrides = recorded("a=1,2", "++lr=3", "a=2,3", "++a=4,5", lr="interval(0,1)", seed="1")
    assert overrides == ["seed=1", "++lr=3", "++a=4,5"]
    jobs = combinations(OverridesParser.create().parse_overrides(overrides))
    assert jobs == [["seed=1", "++lr=3", "++a=4"], ["seed=1", "++lr=3", "++a=5"]]


CALLBACK = """
from pathlib import Path
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger

class Broken(Callback):
    def on_train_epoch_end(self, trainer, module):
        if Path(trainer.default_root_dir).name == "3":
            open("missing")

class Late(TensorBoardLogger):
    def finalize(self, status):
        if Path(self.save_dir, "results.json").exists():
            raise OSError("gone")
"""


def test_jobs_that_are_invalid_or_raise_an_error_fail_alone_and_are_named(tmp_path):
    (tmp_path / "faults.py").write_text(CALLBACK)
    faults = ("+trainer.callbacks.broken._target_=faults.Broken", "trainer.logger.tensorboard._target_=faults.Late")
    words = ("-m", *tiny_data(tmp_path), *TINY, "trainer.max_epochs=1", "model.kernel_size=9,3", "seed=1,2", *faults)
    done = Script("train.py", *words, cwd=tmp_path, before=importing_from(tmp_path)).wait()
    sweep = sweep_folder(tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("sweep: 3 of 4 jobs failed: 0 (model.kernel_size=9 seed=1): model.kernel_size: 9")
    assert f"python train.py sweep={sweep.relative_to(tmp_path)}" in done.stderr
    rows = read_csv(sweep / "sweep.csv")
    assert [(row["rank"], row["job"], row["model.kernel_size"], row["seed"]) for row in rows] == [
        ("1", "2", "3", "1"), ("1", "3", "3", "2"), ("2", "0", "9", "1"), ("2", "1", "9", "2"),
    ]  # fmt: skip
    assert float(rows[0]["val/accuracy"]) > 0
    assert all(row["error"].startswith("model.kernel_size: 9") for row in rows[2:])
    missing = "FileNotFoundError: [Errno 2] No such file or directory: 'missing'"
    assert (rows[0]["error"], rows[1]["error"]) == ("", missing)
    logs = [(sweep / job / "train.log").read_text() for job in "23"]
    assert "OSError: gone" in logs[0]  # which does not count, because the job has a result
    assert missing in logs[1] and "faults.py" in logs[1]  # the traceback
    events = EventAccumulator(str(sweep / "2")).Reload()
    data = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    parameters = metadata.parse_session_start_info_plugin_data(data).hparams
    assert {key: value.number_value for key, value in parameters.items()} == {"model.kernel_size": 3, "seed": 1}
    page = (sweep / "sweep.html").read_text()
    assert page.count("<svg") == 2
    assert "job 0 model.kernel_size=9 seed=1" in page
    assert not [word for word in ("http://", "https://") if f'src="{word}' in page or f'href="{word}' in page]


def num_trained(run: Path) -> int:
    """Returns the number of epochs whose end the log tells."""
    return (run / "train.log").read_text().count("  train/loss ")


def test_a_killed_job_fails_alone_and_resumes_from_its_last_epoch_with_the_sweep(tmp_path):
    write_idx_folder(tmp_path / "tiny")
    words = (*DATA, "trainer.max_epochs=3,1", "seed=${trainer.max_epochs}")
    process = Script("train.py", "-m", *words, cwd=tmp_path, before=waiting_after(1, "0"))
    process.wait_for("outputs/sweeps/*/*/0/checkpoints/last.ckpt")
    (job,) = children(process.pid)
    os.kill(job, signal.SIGKILL)
    errors = process.wait().stderr
    assert process.returncode == 2, process.stdout
    assert errors.startswith("sweep: 1 of 2 jobs failed: 0 (trainer.max_epochs=3): was killed by SIGKILL"), errors
    sweep = sweep_folder(tmp_path)
    assert read_json(sweep / "0/error.json")["error"].startswith("was killed by SIGKILL")
    trained = num_trained(sweep / "0")  # 0 or 1: an epoch's line comes after its checkpoint
    before = {file: file.stat().st_mtime_ns for file in (sweep / "1").rglob("*") if file.is_file()}

    again = succeeds("train.py", "sweep=latest", "hydra.launcher.n_jobs=2", cwd=tmp_path)
    assert "job 0  trainer.max_epochs=3  resumes after epoch 1" in again.stdout
    assert "job 1  trainer.max_epochs=1  finished before" in again.stdout
    assert {file: file.stat().st_mtime_ns for file in (sweep / "1").rglob("*") if file.is_file()} == before
    assert not (sweep / "0/error.json").exists()
    assert [row["epoch"] for row in read_csv(sweep / "0/metrics.csv")] == ["1", "2", "3"]
    assert num_trained(sweep / "0") == trained + 2  # epochs 2 and 3
    assert sweep_folder(tmp_path) == sweep

    recorded = (sweep / "multirun.yaml").read_bytes()
    with FileLock(sweep / ".lock"):
        locked = refused("train.py", "sweep=latest", cwd=tmp_path)
    assert locked.endswith("another process works in it; wait for that process or stop it.\n")
    other = refused("train.py", f"sweep={sweep}", "seed=3", cwd=tmp_path)
    assert "leave that out, or start a new sweep without sweep=." in other
    entered = refused("train.py", "-m", *DATA, "optimizer.lr=0.1,0.2", f"hydra.sweep.dir={sweep}", cwd=tmp_path)
    assert f"hydra.sweep.dir: {sweep} contains another sweep; resume that with sweep={sweep}, or" in entered
    assert (sweep / "multirun.yaml").read_bytes() == recorded


def test_no_job_outlives_its_sweep(tmp_path):
    write_idx_folder(tmp_path / "tiny")
    two = ("trainer.max_epochs=1000", "seed=1,2", "hydra.launcher.n_jobs=2")
    process = Script("train.py", "-m", *DATA, *two, cwd=tmp_path)
    process.wait_for("outputs/sweeps/*/*/*/checkpoints/last.ckpt", count=2)
    assert len(children(process.pid)) == 2
    process.kill()
    wait_until_no_process_remains(tmp_path)


@pytest.mark.reliability
@pytest.mark.timeout(300)
def test_a_killed_sweep_of_twenty_loses_at_most_the_epoch_in_flight(tmp_path, record_figure):
    write_idx_folder(tmp_path / "tiny")
    seeds = f"seed={','.join(map(str, range(20)))}"
    process = Script("train.py", "-m", *DATA, "trainer.max_epochs=5", seeds, cwd=tmp_path)
    process.wait_for("outputs/sweeps/*/*/10/checkpoints/last.ckpt")
    process.kill()
    sweep = sweep_folder(tmp_path)
    before = [last["epoch"] if (last := last_epoch(sweep / str(number))) else "0" for number in range(20)]
    succeeds("train.py", "sweep=latest", cwd=tmp_path)
    trained = sum(num_trained(sweep / str(number)) for number in range(20))
    record_figure(f"a killed sweep of 20, finished epochs {' '.join(before)}: {trained} epochs trained for 100")
    assert before[:10] == ["5"] * 10
    assert before[11:] == ["0"] * 9
    assert trained in (99, 100)  # an epoch's line comes after its checkpoint


@pytest.mark.reliability
@pytest.mark.timeout(1800)
def test_a_hundred_jobs_do_not_increase_the_memory(tmp_path, record_figure):
    seeds = f"seed={','.join(map(str, range(100)))}"
    process = Script("train.py", "-m", "trainer=smoke", seeds, cwd=tmp_path)
    starts, megabytes = [], []
    for line in process.lines():
        if line.endswith("starts\n"):
            starts.append(time.time())
            megabytes.append(process.resident_megabytes())
    assert (process.returncode, len(starts)) == (0, 100)
    seconds = []
    for number, start in enumerate(starts):
        lines = (sweep_folder(tmp_path) / str(number) / "train.log").read_text().splitlines()
        first, second = [
            datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp() for line in lines if "train/loss" in line
        ]
        seconds.append(first - start - (second - first))  # the first epoch takes as long as the second
    growth = megabytes[-1] - megabytes[9]
    record_figure(f"100 jobs: {statistics.median(seconds):.2f} s from a job's start to its first epoch (median)")
    record_figure(f"the sweep's memory at its 10th and its 100th job: {megabytes[9]:.0f} and {megabytes[-1]:.0f} MB")
    assert growth < 10


def test_a_plan_shows_parameters_and_steps_and_starts_nothing(tmp_path):
    write_idx_folder(tmp_path / "tiny")
    done = script("train.py", "-m", *DATA, "model.kernel_size=3,9", "plan=true", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0][:3] == ["job", "model.kernel_size", "parameters"]
    assert rows[1][3:5] == ["10", "3"]  # 160 images in batches of 16, epochs
    assert rows[2][2] == "invalid"
    assert "job 1: model.kernel_size: 9 does" in done.stdout
    assert "model.shared_tiles: " not in done.stdout + done.stderr  # only the jobs log it
    assert [file.name for file in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("words", "steps", "seconds"),
    [
        (("trainer.devices=2", "trainer.accelerator=cpu"), 5, 3 * (5 + 2) + 3),  # of each process
        (("trainer.limit_train_batches=0.5", "trainer.limit_val_batches=1"), 5, 3 * (5 + 1) + 5),
        (("+trainer.overfit_batches=1",), 1, 3 * (1 + 1) + 5),
        (("+trainer.accumulate_grad_batches=3",), 4, 3 * (10 + 3) + 5),
    ],
)
def test_a_plan_counts_the_steps_of_a_job(words, steps, seconds, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "measure_steps", lambda *_: (1.0, 1.0))  # seconds
    planned = plan.estimate(composed_config(*tiny_data(tmp_path), *TINY, *words), {})
    assert (planned.steps_per_epoch, planned.epochs, planned.seconds) == (steps, 3, seconds)


def test_a_plan_estimates_jobs_that_differ_in_their_seed_once(monkeypatch, capsys):
    estimated = []
    monkeypatch.setattr(plan, "estimate", lambda cfg, _: estimated.append(cfg.seed) or plan.Estimate(9, 8, 7, 6.0))
    overrides = [[f"model.lstm_units={units}", f"seed={seed}"] for units in (5, 6) for seed in (1, 2)]
    plan.show_plan(make_jobs(Path("sweep"), overrides), lambda job: composed_config(*job.overrides))
    assert estimated == [1, 1]
    assert "4 jobs, about 0:00:24 one after another" in capsys.readouterr().out


def test_the_command_overrides_the_swept_values_of_an_experiment(tmp_path):
    """The sweep's folder records all overrides as if they had been typed, so that sweep= finds the same jobs."""
    write_idx_folder(tmp_path / "tiny")
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/two.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      model.lstm_units: 3,4\n      seed: 1,2\n"
    )
    words = ("--config-dir=conf", "-m", *DATA, "experiment=two", "seed=7", "trainer.max_epochs=1")
    succeeds("train.py", *words, cwd=tmp_path)
    sweep = sweep_folder(tmp_path)
    assert [str(job) for job in Sweep(sweep).jobs] == ["model.lstm_units=3", "model.lstm_units=4"]
    assert [read_json(sweep / number / "provenance.json")["seed"] for number in "01"] == [7, 7]
    again = script("train.py", "sweep=latest", *words, cwd=tmp_path)
    assert again.stdout.count("finished before") == 2, again.stderr


def test_the_latest_sweep_may_be_in_any_folder_of_outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, folder in enumerate(("outputs/sweeps/2026-01-01/00-00-00", "outputs/mine")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "multirun.yaml").touch()
        os.utime(tmp_path / folder / "multirun.yaml", (number, number))
    assert find_sweep("latest").folder == Path("outputs/mine")


SEARCH = "hydra/sweeper=optuna"


@pytest.mark.parametrize(
    ("words", "line"),
    [(("optimizer.lr=interval(1,2)",), "optimizer.lr=interval(1,2): a grid needs single values; write optimizer.lr=A,"),
     (("experiment=units,quick",), ("experiment: units is a sweep over model.lstm_units, seed; write it as the only",
                                    "'hydra.sweeper' must be configured before the sweep")),  # Hydra 1.4 says so
     (("temperature=1,2",), "temperature: 1, but there is no teacher; add teacher=FOLDER, or leave it out."),
     (("seed=1,2", "hydra.sweep.subdir=x"), "hydra.sweep.subdir: the folder of a job has the job's number; leave this"),
     (("seed=1,2", "hydra.sweep.dir=mine"), "hydra.sweep.dir: mine contains runs of no sweep; write another folder."),
     (("seed=1,2", "hydra.launcher.n_jobs=0"), "hydra.launcher.n_jobs: 0 is not a whole number of at least 1"),
     ((SEARCH, "keep=best,last", "hydra.sweeper.n_trials=0"), "hydra.sweeper.n_trials: 0 is not a whole number"),
     ((SEARCH, "keep=best,last", "hydra.sweeper.sampler._target_=os.system"), "hydra.sweeper.sampler: os.system is"),
     ((SEARCH, "keep=best,last", "hydra.sweeper.pruner._target_=os.system"), "hydra.sweeper.pruner: os.system is"),
     ((SEARCH, "seed=1"), "hydra.sweeper.params: no key has a range to search; add e.g. ")],
)  # fmt: skip
def test_an_invalid_sweep_leaves_no_files(words, line, tmp_path):
    config = tmp_path / "mine/0/.hydra/config.yaml"
    config.parent.mkdir(parents=True)
    config.touch()
    assert refused("train.py", "-m", *words, cwd=tmp_path).startswith(line)
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} <= {config.name, ".lock"}

"""Runs sweeps (train.py -m) as processes."""

import csv
import json
import os
import signal
import statistics
import time
from datetime import datetime

import pytest
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.files import read_json, read_yaml
from quadrant_lstm.run_folder import last_epoch
from quadrant_lstm.sweep.sweep_folder import Sweep, find_sweep
from tests.folders import TINY, children, sweep_folder, tiny_data, wait_until_no_process_remains, write_idx_folder
from tests.scripts import Script, importing_from, script, train_tiny, waiting_after

DATA = ("data=idx", "data.root=tiny", *TINY)


def test_an_invalid_job_fails_alone_and_is_named(tmp_path):
    write_idx_folder(tmp_path / "tiny")
    done = script("train.py", "-m", *DATA, "model.kernel_size=3,9", "seed=1,2", cwd=tmp_path)
    sweep = sweep_folder(tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("sweep: 2 of 4 jobs failed: 2 (model.kernel_size=9 seed=1): model.kernel_size: 9")
    assert f"python train.py sweep={sweep.relative_to(tmp_path)}" in done.stderr
    with (sweep / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["job"], row["model.kernel_size"], row["seed"]) for row in rows] == [
        ("1", "0", "3", "1"), ("1", "1", "3", "2"), ("2", "2", "9", "1"), ("2", "3", "9", "2"),
    ]  # fmt: skip
    assert all(float(row["val/accuracy"]) > 0 for row in rows[:2])
    assert all(row["error"].startswith("model.kernel_size: 9") for row in rows[2:])
    events = EventAccumulator(str(sweep / "1")).Reload()
    data = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    parameters = metadata.parse_session_start_info_plugin_data(data).hparams
    assert {key: value.number_value for key, value in parameters.items()} == {"model.kernel_size": 3, "seed": 2}
    page = (sweep / "sweep.html").read_text()
    assert page.count("<svg") == 2
    assert "job 2 model.kernel_size=9 seed=1" in page
    assert not [word for word in ("http://", "https://") if f'src="{word}' in page or f'href="{word}' in page]


def test_the_traceback_of_a_bug_stands_in_the_log_of_the_job(tmp_path):
    (tmp_path / "broken.py").write_text(
        "from lightning.pytorch import Callback\n\n\nclass Broken(Callback):\n"
        "    def on_train_epoch_end(self, *_):\n        open('missing')\n"
    )
    callback = "+trainer.callbacks.broken._target_=broken.Broken"
    data = tiny_data(tmp_path)
    done = Script(
        "train.py", "-m", *data, *TINY, "seed=1,2", callback, cwd=tmp_path, before=importing_from(tmp_path)
    ).wait()
    assert done.returncode == 2
    log = (sweep_folder(tmp_path) / "0/train.log").read_text()
    assert "FileNotFoundError: [Errno 2] No such file or directory: 'missing'" in log
    assert "broken.py" in log


def test_a_job_that_fails_after_its_result_has_finished(tmp_path):
    (tmp_path / "late.py").write_text(
        "from pathlib import Path\nfrom lightning.pytorch.loggers import TensorBoardLogger\n\n\n"
        "class Late(TensorBoardLogger):\n"
        "    def finalize(self, status):\n"
        "        if Path(self.save_dir, 'results.json').exists():\n"
        "            raise OSError('gone')\n"
    )
    data = tiny_data(tmp_path)
    words = ("seed=1,2", "trainer.logger.tensorboard._target_=late.Late")
    done = Script("train.py", "-m", *data, *TINY, *words, cwd=tmp_path, before=importing_from(tmp_path)).wait()
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "(2 of 2 jobs finished)" in done.stdout
    assert "OSError: gone" in (sweep_folder(tmp_path) / "0/train.log").read_text()


def test_a_killed_job_fails_alone_and_resumes_from_its_last_epoch_with_the_sweep(tmp_path):
    write_idx_folder(tmp_path / "tiny", train=1000)
    words = (*DATA, "trainer.max_epochs=3,1", "seed=${trainer.max_epochs}")
    process = Script("train.py", "-m", *words, cwd=tmp_path, before=waiting_after(2, "0"))
    process.wait_for("outputs/sweeps/*/*/0/checkpoints/last.ckpt")
    (job,) = children(process.pid)
    os.kill(job, signal.SIGKILL)
    errors = process.wait().stderr
    assert process.returncode == 2, process.stdout
    assert errors.startswith("sweep: 1 of 2 jobs failed: 0 (trainer.max_epochs=3): was killed by SIGKILL"), errors
    sweep = sweep_folder(tmp_path)
    assert read_json(sweep / "0/error.json")["error"].startswith("was killed by SIGKILL")
    assert (sweep / "1/results.json").exists()
    before = {file: file.stat().st_mtime_ns for file in (sweep / "1").rglob("*") if file.is_file()}

    again = script("train.py", "sweep=latest", "hydra.launcher.n_jobs=2", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "job 0  trainer.max_epochs=3  resumes after epoch " in again.stdout
    assert "job 1  trainer.max_epochs=1  finished before" in again.stdout
    assert {file: file.stat().st_mtime_ns for file in (sweep / "1").rglob("*") if file.is_file()} == before
    assert read_checkpoint(sweep / "0/checkpoints/last.ckpt")["epoch"] + 1 == 3
    assert not (sweep / "0/error.json").exists()
    with (sweep / "0/metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    assert sweep_folder(tmp_path) == sweep

    other = script("train.py", f"sweep={sweep}", "seed=3", cwd=tmp_path)
    assert other.returncode == 2
    assert "leave it out, or start a new sweep without sweep=." in other.stderr


def test_no_job_outlives_its_sweep(tmp_path):
    write_idx_folder(tmp_path / "tiny", train=2000)
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
    again = script("train.py", "sweep=latest", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    logs = [(sweep / str(number) / "train.log").read_text() for number in range(20)]
    trained = sum(log.count("  train/loss ") for log in logs)
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


@pytest.mark.parametrize(
    ("swept", "status", "says"),
    [
        ("model.kernel_size=3,9", 2, "job 1: model.kernel_size: 9 does"),
        ("data.orderings=[[1,2,3,4]],[[4,3,2,1]]", 0, "2 jobs, about "),
    ],
)
def test_a_plan_starts_nothing(swept, status, says, tmp_path):
    write_idx_folder(tmp_path / "tiny")
    done = script("train.py", "-m", *DATA, swept, "plan=true", cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert says in done.stdout
    assert "model.shared_tiles: " not in done.stdout + done.stderr  # only the jobs log it
    assert [file.name for file in tmp_path.iterdir()] == ["tiny"]


def test_the_command_overrides_the_swept_values_of_an_experiment(tmp_path):
    """The sweep's folder records all overrides as if they had been typed, so that sweep= finds the same jobs."""
    write_idx_folder(tmp_path / "tiny")
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/two.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      model.lstm_units: 3,4\n      seed: 1,2\n"
    )
    words = ("--config-dir=conf", "-m", *DATA, "experiment=two", "seed=7", "trainer.max_epochs=1")
    done = script("train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = sweep_folder(tmp_path)
    assert [str(job) for job in Sweep(sweep).jobs] == ["model.lstm_units=3", "model.lstm_units=4"]
    provenance = [json.loads((sweep / number / "provenance.json").read_text()) for number in "01"]
    assert [one["seed"] for one in provenance] == [7, 7]
    for more in (words[:1], words):
        again = script("train.py", "sweep=latest", *more, cwd=tmp_path)
        assert again.stdout.count("finished before") == 2, again.stderr
    foreign = script("train.py", "sweep=latest", cwd=tmp_path)
    assert foreign.returncode == 2
    assert f" was started with --config-dir={tmp_path}/conf; add it if you trust that folder." in foreign.stderr


def test_shuffled_values_and_those_of_a_glob_keep_their_order_in_the_report(tmp_path):
    values = ("model.lstm_units=shuffle(1,2,3,4)", "schedule=glob(c*)")
    done = train_tiny(tmp_path, "-m", *values, "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    assert "(8 of 8 jobs finished)" in done.stdout
    sweep = find_sweep(str(sweep_folder(tmp_path)))
    trained = [read_yaml(job.folder / ".hydra/config.yaml").model.lstm_units for job in sweep.jobs]
    assert [int(job.swept["model.lstm_units"]) for job in sweep.jobs] == trained
    assert sorted(trained) == [1, 1, 2, 2, 3, 3, 4, 4]


def test_another_process_or_sweep_does_not_enter_the_folder_of_a_sweep(tmp_path):
    train_tiny(tmp_path, "-m", "seed=1,2", "trainer.max_epochs=1", "hydra.sweep.dir=S")
    before = (tmp_path / "S/multirun.yaml").read_bytes()
    with FileLock(tmp_path / "S/.lock"):
        done = script("train.py", "sweep=S", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("another process works in it; wait for that process or stop it.\n")
    data = ("data=idx", f"data.root={tmp_path / 'tiny'}")
    done = script("train.py", "-m", *data, "optimizer.lr=0.1,0.2", "hydra.sweep.dir=S", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("hydra.sweep.dir: S contains another sweep; resume that with sweep=S, or write")
    assert (tmp_path / "S/multirun.yaml").read_bytes() == before


def test_a_plan_shows_parameters_and_steps(tmp_path):
    devices = ("trainer.devices=2", "trainer.accelerator=cpu")  # limits count the batches of one process
    done = script("train.py", "-m", "model.lstm_units=5,16", "trainer=smoke", *devices, "plan=true", cwd=tmp_path)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0][:3] == ["job", "model.lstm_units", "parameters"]
    assert rows[1][:5] == ["0", "5", "93,718", "5", "2"]  # parameters, steps per epoch, epochs
    assert rows[2][:3] == ["1", "16", f"{93718 - 83340 + 4 * 16 * (4160 + 16 + 2) + 11 * 50:,}"]


def test_a_plan_counts_an_overfitted_batch_as_one_step(tmp_path):
    done = script("train.py", "-m", "seed=1,2", "trainer=overfit", "plan=true", cwd=tmp_path)
    assert done.stdout.splitlines()[1].split()[2:5] == ["93,718", "1", "200"]


@pytest.mark.parametrize(
    ("words", "line"),
    [(("sweep=nowhere",), "sweep: nowhere has no multirun.yaml; give a folder like"),
     (("sweep=latest",), "sweep: latest, but "), (("sweep=latest", "run=latest"), "run: cannot be combined"),
     (("plan=maybe",), "plan: 'maybe' is not true; write plan=true"),
     (("-m", "optimizer.lr=interval(1,2)"), "optimizer.lr=interval(1,2): a grid needs single values; write optimizer."),
     (("-m", "seed=1,2", "hydra.sweep.subdir=x"), "hydra.sweep.subdir: the folder of a job is always ${hydra."),
     (("-m", "model.lstm_unit=5,6"), "model.lstm_unit: there is no such key; did you mean model.lstm_units?")],
)  # fmt: skip
def test_an_invalid_command_leaves_no_files(words, line, tmp_path):
    done = script("train.py", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())

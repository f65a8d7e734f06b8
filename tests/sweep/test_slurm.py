"""Runs sweeps on a real SLURM cluster: `.ci/slurm start FOLDER` starts one with one node."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from filelock import FileLock

from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.run_folder import METRICS, read_results, read_rows
from quadrant_lstm.sweep.search import storage
from tests.folders import TINY, sweep_folder, write_idx_folder
from tests.scripts import ROOT, Script, refused, script, succeeds

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]
SWEEP = ("-m", "data=idx", "data.root=tiny", *TINY, "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10")


@pytest.fixture(autouse=True)
def _cluster(tmp_path, tmp_path_factory):
    """Runs one test at a time; empties the queue after each, and waits until its jobs have ended."""
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("no SLURM answers; .ci/slurm start FOLDER starts one")
    write_idx_folder(tmp_path / "tiny")
    with FileLock(tmp_path_factory.getbasetemp().parent / "slurm.lock"):
        yield
        subprocess.run(["scancel", "--me", "--full"], check=True)
        state = ["sinfo", "--noheader", "--partition=main", "--format=%T"]
        wait_until(lambda: subprocess.run(state, check=True, capture_output=True).stdout.strip() == b"idle", 60)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def long_sweep(folder: Path, *swept: str) -> tuple[Script, Path]:
    """Starts a sweep and returns when its first job has finished the first of 300 epochs."""
    write_idx_folder(folder / "tiny", train=2000)
    process = Script("train.py", *SWEEP, "trainer.max_epochs=300", *swept, cwd=folder)
    process.wait_for("outputs/sweeps/*/*/0/checkpoints/last.ckpt")
    return process, sweep_folder(folder) / "0"


def epochs(run: Path) -> list[int]:
    return [int(row["epoch"]) for row in read_rows(run / METRICS)]


def slurm_id(run: Path) -> str:
    return json.loads((run.parent / ".submitit/jobs.json").read_text())[run.name]


def test_a_sweep_is_one_array_and_a_failed_job_ends_no_other(tmp_path):
    done = script("train.py", *SWEEP, "model.kernel_size=3,9", "seed=1,2", cwd=tmp_path)
    sweep = sweep_folder(tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("sweep: 2 of 4 jobs failed: 2 (model.kernel_size=9 seed=1): model.kernel_size: 9")
    ids = json.loads((sweep / ".submitit/jobs.json").read_text())
    assert len({one.partition("_")[0] for one in ids.values()}) == 1  # one array
    assert [(sweep / str(number) / "results.json").exists() for number in range(4)] == [True, True, False, False]
    before = {file: file.stat().st_mtime_ns for file in (sweep / "0").rglob("*")}
    again = script("train.py", "sweep=latest", cwd=tmp_path)
    assert again.stdout.count("finished before") == 2
    assert "submitted      2 jobs" in again.stdout
    assert all(file.stat().st_mtime_ns == written for file, written in before.items())


@pytest.mark.parametrize("how", ["preempted", "signalled"])
def test_a_requeued_job_resumes_in_its_folder(how, tmp_path):
    process, run = long_sweep(tmp_path, "seed=1")
    if how == "preempted":
        urgent = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"]
        subprocess.run(urgent, check=True, capture_output=True)
    else:  # as at the time limit
        subprocess.run(["scancel", "--signal=USR2", slurm_id(run)], check=True)
    wait_until(lambda: "resuming" in (run / "train.log").read_text(), 150)
    epoch = epochs(run)[-1]
    wait_until(lambda: epochs(run)[-1] >= epoch + 2, 60)
    assert (finished := epochs(run)) == list(range(1, len(finished) + 1))
    assert len(list(run.parent.glob("[0-9]*"))) == 1
    assert process.returncode is None  # it waits for the requeued job
    subprocess.run(["scancel", slurm_id(run)], check=True)
    assert process.wait().returncode == 2
    assert process.stderr.startswith("sweep: 1 of 1 jobs failed: 0: ")


def test_submitted_jobs_are_followed_and_not_submitted_again(tmp_path):
    process, run = long_sweep(tmp_path, "seed=1,2")
    process.send(signal.SIGINT)
    assert process.wait(30).returncode == 130
    first = slurm_id(run).partition("_")[0]
    assert f"the jobs continue in SLURM: scancel {first} cancels them" in process.stdout
    before = json.loads((run.parent / ".submitit/jobs.json").read_text())
    again = Script("train.py", "sweep=latest", cwd=tmp_path)
    line = next(line for line in again.lines() if line.startswith("job 0"))
    assert "resumes after epoch" in line
    assert "submitted" not in again.stdout
    assert json.loads((run.parent / ".submitit/jobs.json").read_text()) == before
    second = script("train.py", "sweep=latest", cwd=tmp_path)
    assert second.returncode == 2
    assert second.stderr.strip().endswith("another process works in it; wait for that process or stop it.")
    subprocess.run(["scancel", first], check=True)
    assert again.wait().stderr.startswith("sweep: 2 of 2 jobs failed: 0 (seed=1): ")


def test_two_tasks_train_one_network(tmp_path):
    two = ("trainer.accelerator=cpu", "trainer.devices=2")
    done = script("train.py", *SWEEP, *two, "data.batch_size=8", "seed=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    run = sweep_folder(tmp_path) / "0"
    assert epochs(run) == [1, 2, 3]
    assert read_checkpoint(run / "checkpoints/last.ckpt")["global_step"] == 3 * 10  # 160 images, 2 tasks, 8 each
    assert read_results(run)["test/images"] == 70
    assert (run / "train.log").read_text().count("epoch 3/3") == 1


def test_a_search_submits_as_many_trials_as_may_run(tmp_path):
    search = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.launcher.array_parallelism=2")
    succeeds("train.py", *SWEEP, *search, "optimizer.lr=tag(log,interval(1e-3,1e-1))", cwd=tmp_path)
    sweep = sweep_folder(tmp_path)
    study = optuna.load_study(study_name="sweep", storage=storage(sweep))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    assert sorted(folder.name for folder in sweep.glob("[0-9]*")) == list("0123")


def test_jobs_that_slurm_refuses_are_one_line(tmp_path):
    of_sbatch = "hydra.launcher: sbatch refuses the jobs ("
    for word, line in {
        "hydra.launcher.partition=nowhere": of_sbatch,
        "hydra.launcher.timeout_min=1h": f'{of_sbatch}Parameter "timeout_min" expected type',
        "trainer.devices=auto": "hydra.launcher.tasks_per_node: 'auto' is not a number; SLURM needs one before",
    }.items():
        assert refused("train.py", *SWEEP, "seed=1,2", word, cwd=tmp_path).startswith(line)


ONE_PROCESS, SEVERAL = re.findall(
    r"^```bash\n(.*?)^```", (ROOT / "docs/machines.md").read_text(), re.MULTILINE | re.DOTALL
)


def submit(text: str, folder: Path, *arguments: str) -> Path:
    """Submits a script of docs/machines.md for one core instead of a GPU, on the tiny data. Returns its run folder."""
    text = re.sub("^#SBATCH --gpus.*\n", "", text, flags=re.MULTILINE).replace("--cpus-per-task=8", "--cpus-per-task=1")
    text = text.replace("experiment=quick", " ".join(("data=idx", "data.root=tiny", *TINY, *arguments)))
    (folder / "job.sh").write_text(text)
    for name in ("train.py", "conf"):
        (folder / name).symlink_to(ROOT / name)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    sbatch = ["sbatch", "--parsable", "job.sh"]
    done = subprocess.run(sbatch, check=True, capture_output=True, text=True, cwd=folder, env=environment)
    return folder / "outputs/slurm" / done.stdout.strip()


def test_the_script_of_the_page_resumes_after_its_time_limit(tmp_path):
    write_idx_folder(tmp_path / "tiny", train=2000)
    run = submit(ONE_PROCESS, tmp_path, "trainer.max_epochs=300")
    wait_until((run / "checkpoints/last.ckpt").exists, 60)
    subprocess.run(["scancel", "--batch", "--signal=USR1", run.name], check=True)
    wait_until(lambda: "resuming" in (run / "train.log").read_text(), 150)
    epoch = epochs(run)[-1]
    wait_until(lambda: epochs(run)[-1] >= epoch + 2, 60)
    assert (finished := epochs(run)) == list(range(1, len(finished) + 1))


def test_several_tasks_of_srun_are_refused_before_the_training(tmp_path):
    two_tasks = ONE_PROCESS.replace("--ntasks-per-node=1", "--ntasks-per-node=2")
    run = submit(two_tasks, tmp_path, "trainer.accelerator=cpu", "trainer.devices=2")
    log = tmp_path / f"slurm-{run.name}.out"
    wait_until(lambda: log.exists() and log.read_text().count("trainer.devices: processes that srun starts ") == 2, 60)
    assert not run.exists()


def test_the_script_of_the_page_starts_several_processes(tmp_path):
    text = (
        SEVERAL.replace("--nodes=2", "--nodes=1").replace("/ 4", "/ 1").replace("nproc-per-node=4", "nproc-per-node=2")
    )
    run = submit(text, tmp_path, "trainer.accelerator=cpu", "data.batch_size=8")
    wait_until((run / "results.json").exists, 100)
    assert epochs(run) == [1, 2, 3]
    assert read_checkpoint(run / "checkpoints/last.ckpt")["global_step"] == 3 * 10  # 160 images, 2 processes, 8 each

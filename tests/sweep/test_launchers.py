"""Tests how the jobs of a sweep are started and followed, and which GPUs and how many threads they get."""

import json

from hydra_plugins.quadrants import launchers
from hydra_plugins.quadrants.launchers import JobLauncher, LocalLauncher, visible_gpus
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.sweep_folder import make_jobs
from tests.folders import TINY, tiny_data
from tests.scripts import Script, importing_from


class Imagined(JobLauncher):
    """Its jobs end one after another, the first one first; those with an even number have a result."""

    POLL_SECONDS = 0.0
    ON_START = "starts"
    hydra_context = config = None

    def __init__(self):
        self.jobs, self.started = {}, []

    def start(self, jobs):
        self.started.append([job.number for job, _ in jobs])
        self.jobs |= {job.number: job for job, _ in jobs}

    def alive(self):
        return set(list(self.jobs)[1:])

    def collect_end(self, job):
        del self.jobs[job.number]
        if job.number % 2 == 0:
            job.folder.mkdir()
            (job.folder / "results.json").write_text(json.dumps({"monitor": "val/accuracy", "seconds": 1.0}))
        return "was killed"

    def on_exit(self, jobs):
        self.left = [job.number for job in jobs]


def test_a_job_is_submitted_when_another_has_ended_and_an_invalid_one_fails_alone(tmp_path, monkeypatch):
    def compose(context, config, job):
        if job.number == 2:
            raise UserError("seed: is wrong")

    monkeypatch.setattr(launchers, "compose", compose)
    jobs = make_jobs(tmp_path, [[f"seed={seed}"] for seed in range(5)], range(5))
    jobs[2].record_error("of an earlier start")
    launcher, ended = Imagined(), []
    launcher.run_jobs(iter(jobs), 2, on_end=lambda job: ended.append(job.number))
    assert launcher.started == [[0, 1], [3], [4]]
    assert ended == [0, 2, 1, 3, 4]
    assert [job.error() for job in jobs] == [None, "was killed", "seed: is wrong", "was killed", None]
    assert launcher.left == []


def test_a_job_gets_the_gpus_with_the_fewest_jobs(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    launcher = LocalLauncher(n_jobs=3)
    for number, (devices, expected) in enumerate([(1, ["4"]), (2, ["5", "6"]), ("auto", ["7"]), (2, ["4", "5"])]):
        launcher.gpus[number] = launcher.least_used(visible_gpus(), devices)
        assert launcher.gpus[number] == expected


def test_jobs_at_once_have_gpus_of_their_own_and_share_the_threads(tmp_path):
    (tmp_path / "noting.py").write_text(
        "import os, pathlib, torch\nfrom lightning.pytorch import Callback\n\n\nclass Noting(Callback):\n"
        "    def on_train_start(self, trainer, *_):\n"
        "        found = f'{os.environ[\"CUDA_VISIBLE_DEVICES\"]} {torch.get_num_threads()}'\n"
        "        pathlib.Path(trainer.default_root_dir, 'found').write_text(found)\n"
    )
    data = (*tiny_data(tmp_path), *TINY, "trainer.max_epochs=1")
    words = ("seed=1,2", "hydra.launcher.n_jobs=2", "+trainer.callbacks.noting._target_=noting.Noting")
    place = "hydra.sweep.dir=sweep_${seed}"  # a key that the sweep varies
    gpus = {"CUDA_VISIBLE_DEVICES": "6,7"}
    before = importing_from(tmp_path) + "; import torch; torch.set_num_threads(2)"
    done = Script("train.py", "-m", *data, *words, place, cwd=tmp_path, environment=gpus, before=before).wait()
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / "sweep_1" / job / "found").read_text() for job in "01"] == ["6 1", "7 1"]

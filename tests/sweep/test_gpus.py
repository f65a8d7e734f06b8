"""Tests which GPUs and how many threads the jobs of a sweep get."""

from hydra_plugins.quadrants.launchers import LocalLauncher, visible_gpus
from tests.folders import TINY, sweep_folder, tiny_data
from tests.scripts import Script, importing_from, script


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
    gpus = {"CUDA_VISIBLE_DEVICES": "6,7"}
    before = importing_from(tmp_path) + "; import torch; torch.set_num_threads(2)"
    done = Script("train.py", "-m", *data, *words, cwd=tmp_path, environment=gpus, before=before).wait()
    assert done.returncode == 0, done.stderr
    found = [(sweep_folder(tmp_path) / str(job) / "found").read_text() for job in range(2)]
    assert found == ["6 1", "7 1"]


def test_a_job_cannot_choose_its_gpus_when_several_run_at_once(tmp_path):
    words = ("seed=1,2", "hydra.launcher.n_jobs=2", "trainer.devices=[0]")
    done = script("train.py", "-m", "trainer=smoke", *words, cwd=tmp_path, CUDA_VISIBLE_DEVICES="6,7")
    assert done.returncode == 2
    assert done.stderr.startswith("trainer.devices: [0] names GPUs, but hydra.launcher.n_jobs=2 assigns them to jobs; ")

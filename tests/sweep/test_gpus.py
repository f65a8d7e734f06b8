"""Tests which GPUs the jobs of a sweep get."""

from hydra_plugins.quadrants.local import LocalLauncher, visible_gpus


def test_a_job_gets_the_gpus_with_the_fewest_jobs(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    launcher = LocalLauncher(n_jobs=3)
    for number, (devices, expected) in enumerate([(1, ["4"]), (2, ["5", "6"]), ("auto", ["7"]), (2, ["4", "5"])]):
        launcher.gpus[number] = launcher.least_used(visible_gpus(), devices)
        assert launcher.gpus[number] == expected

"""Tests train.py as a process, on a data set small enough for epochs of less than a second."""

import json
import re
import shlex
import shutil
import signal
import subprocess

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf

from quadrant_lstm.cli.arguments import hydra_arguments
from quadrant_lstm.data.images import load_images
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import CONFIG, read_results, read_rows
from tests.folders import TINY, run_folder, sweep_folder, tiny_data
from tests.scripts import ROOT, Script, importing_from, script, train_tiny

RESULTS = (
    "test/accuracy", "test/loss", "test/images", "val/accuracy", "best_epoch", "keep", "epochs", "seconds",
    "parameters", "samples_per_second", *(f"test/accuracy_step_{step}" for step in range(1, 5)),
)  # fmt: skip


def rows(run):
    return read_rows(run / "metrics.csv")


def checkpoint(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def test_a_run_folder_contains_the_documented_files(smoke_run):
    files = {str(file.relative_to(smoke_run)) for file in smoke_run.rglob("*") if file.is_file()}
    events = {name for name in files if name.startswith("events.out.tfevents")}
    assert events
    (projector,) = {name.partition("/")[0] for name in files if name.endswith("last_state/tensors.tsv")}
    assert files - events == {
        *(f"{projector}/last_state/{name}" for name in ("metadata.tsv", "sprite.png", "tensors.tsv")),
        *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")),
        *(".lock", "projector_config.pbtxt", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.csv"),
        *("provenance.json", "report.html", "results.json", "train.log", "hparams.yaml"),
    }
    assert re.fullmatch(r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", "/".join(smoke_run.parts[-3:]))


def test_the_results_agree_with_metrics_and_checkpoint(finished_run):
    results = read_results(finished_run)
    assert set(results) == set(RESULTS)
    epochs = rows(finished_run)
    best = max(reversed(epochs), key=lambda row: float(row["val/accuracy"]))  # ties go to the later epoch
    assert results["epochs"] == 3
    assert (results["best_epoch"], results["keep"]) == (int(best["epoch"]), "best")
    assert results["val/accuracy"] == float(best["val/accuracy"])
    assert checkpoint(finished_run, "best")["epoch"] + 1 == results["best_epoch"]
    assert results["test/images"] == 70
    assert results["test/accuracy_step_4"] == results["test/accuracy"]
    assert 0 < results["seconds"] < 60


def test_the_default_network_has_the_parameters_of_the_question(smoke_run):
    assert read_results(smoke_run)["parameters"] == 93718


def test_metrics_contain_one_row_per_epoch(finished_run):
    epochs = rows(finished_run)
    assert [row["epoch"] for row in epochs] == ["1", "2", "3"]
    assert all(float(value) > 0 for row in epochs for value in row.values())
    assert float(epochs[2]["train/loss"]) < float(epochs[0]["train/loss"])


def test_provenance_contains_command_data_versions_and_commit(smoke_run):
    found = json.loads((smoke_run / "provenance.json").read_text())
    *_, script, argument = shlex.split(found["command"])
    assert script.endswith("train.py") and argument == "trainer=smoke"
    assert found["data"]["sha256"] == load_images("mnist", None).sha256()
    assert found["versions"]["torch"] == torch.__version__
    assert found["seed"] == 1
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        assert found["git"]["commit"] == head.stdout.strip()


def test_screen_and_log_show_shapes_epochs_and_results(finished_run):
    log = (finished_run / "train.log").read_text()
    screen = (finished_run.parents[2] / "stdout").read_text()
    for text in (log, screen):
        assert "encoder.conv1  Conv2d       [N, T, 4, 14, 2]" in text
        assert re.search(r"epoch 3/3  train/loss .* val/accuracy .* samples/s", text)
        assert re.search(r"test accuracy  \d+\.\d\d %  \(70 samples, best epoch \d", text)
        assert f"run folder     {finished_run.relative_to(finished_run.parents[2])}" in text
        assert "tensorboard --logdir outputs" in text


def test_a_moved_and_resumed_run_equals_an_uninterrupted_run_exactly(finished_run, tmp_path):
    train_tiny(tmp_path, "trainer.max_epochs=1")
    run = run_folder(tmp_path).rename(tmp_path / "moved")
    again = script("train.py", "run=moved", "trainer.max_epochs=3", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "resuming moved after its last finished epoch, with trainer.max_epochs=3" in again.stdout
    assert not list(tmp_path.glob("outputs/*/*"))
    one, two = checkpoint(finished_run), checkpoint(run)
    assert one["epoch"] == two["epoch"] == 2
    for name, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][name]), name
    for old, new in zip(rows(finished_run), rows(run), strict=True):
        speed = ("train/samples_per_second", "train/epoch_seconds")
        assert {k: v for k, v in old.items() if k not in speed} == {k: v for k, v in new.items() if k not in speed}
    results = [read_results(folder) for folder in (finished_run, run)]
    assert results[0]["test/loss"] == results[1]["test/loss"]


def test_a_run_interrupted_before_its_test_is_tested_when_resumed(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "results.json").unlink()
    done = script("train.py", "run=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = (read_results(folder) for folder in (finished_run, run))
    assert one.pop("seconds") >= two.pop("seconds") > 0
    assert one == two
    assert (run / "metrics.csv").read_bytes() == (finished_run / "metrics.csv").read_bytes()


def test_only_the_same_seed_gives_the_same_weights(finished_run, tmp_path):
    train_tiny(tmp_path, "-m", "seed=1,2")
    sweep = sweep_folder(tmp_path)
    heads = [checkpoint(run)["state_dict"]["network.head.weight"] for run in (finished_run, sweep / "0", sweep / "1")]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_ctrl_c_keeps_the_last_finished_epoch_and_prints_how_to_resume(tmp_path):
    process = Script("train.py", *tiny_data(tmp_path), *TINY, "trainer.max_epochs=10000", cwd=tmp_path)
    process.wait_for("outputs/2*/*/checkpoints/last.ckpt")
    process.send(signal.SIGINT)
    assert process.wait(30).returncode == 130, process.stderr
    run = run_folder(tmp_path)
    assert f"interrupted; resume with: python train.py run={run.relative_to(tmp_path)}" in process.stdout
    assert "Traceback" not in process.stderr
    assert not (run / "results.json").exists()
    done = checkpoint(run)["epoch"] + 1
    again = script("train.py", f"run={run}", f"trainer.max_epochs={done + 1}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [int(row["epoch"]) for row in rows(run)] == list(range(1, done + 2))


def test_a_finished_run_is_not_resumed(finished_run):
    done = script("train.py", f"run={finished_run}", cwd=finished_run.parents[2])
    assert done.returncode == 2
    assert "has finished its 3 epochs; to train longer, add e.g. trainer.max_epochs=4." in done.stderr
    assert done.stderr.count("\n") == 1


def test_ties_go_to_the_later_epoch(tmp_path):
    train_tiny(tmp_path, "optimizer.lr=1e-12")  # the metrics stay constant
    assert read_results(run_folder(tmp_path))["best_epoch"] == 3


def test_the_schedule_of_a_resumed_run_is_not_stretched(tmp_path):
    train_tiny(tmp_path, "schedule=onecycle")
    assert float(rows(run_folder(tmp_path))[-1]["train/learning_rate"]) < 1e-5
    again = script("train.py", "run=latest", cwd=tmp_path)
    assert "has finished its 3 epochs, for which its schedule was made; to train longer, start a new" in again.stderr
    longer = script("train.py", "run=latest", "trainer.max_epochs=4", cwd=tmp_path)
    assert longer.returncode == 2
    assert longer.stderr.startswith("trainer.max_epochs: 40 steps, but this run's schedule was made for 30 and cannot")


def test_a_run_that_is_trained_for_longer_has_no_results_until_it_ends(tmp_path):
    train_tiny(tmp_path, "optimizer=sgd")
    run = run_folder(tmp_path)
    (run / "report.html").write_text("the report")
    refused = script("train.py", "run=latest", "trainer.max_epochs=4", "data.batch_size=0", cwd=tmp_path)
    assert refused.returncode == 2
    assert (run / "results.json").exists()
    diverged = script("train.py", "run=latest", "trainer.max_epochs=4", "optimizer.lr=1e30", cwd=tmp_path)
    assert diverged.returncode == 2
    assert not (run / "results.json").exists()
    assert not (run / "report.html").exists()
    assert script("train.py", "run=latest", "optimizer.lr=0.001", cwd=tmp_path).returncode == 0
    assert read_results(run)["epochs"] == 4


@pytest.mark.parametrize(
    "word", ["optimizer.lr=0.1", "schedule.gamma=0.5", "init=latest", "data.orderings.0=[4,3,2,1]"]
)
def test_a_run_resumes_with_its_own_schedule_and_orderings(word, finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    config = OmegaConf.load(run / CONFIG)
    config.schedule = {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "_partial_": True, "gamma": 0.9}
    OmegaConf.save(config, run / CONFIG)
    with pytest.raises(UserError, match=f"^{re.escape(word)}: "):
        hydra_arguments([f"run={run}", "trainer.max_epochs=4", word])


def test_each_process_needs_a_sample(tmp_path):
    options = ("trainer.devices=2", "trainer.accelerator=cpu", "data.validation_images=1")
    done = script("train.py", *tiny_data(tmp_path), *TINY, *options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("trainer.devices: 2 processes, but only 1 validation sample; use fewer ")
    assert done.stderr.count("\n") == 1


def test_two_processes_do_not_work_in_one_run(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    with FileLock(run / ".lock"):
        done = script("train.py", "run=run", "trainer.max_epochs=4", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("another process works in it; wait for that process or stop it.\n")


def test_a_new_run_does_not_overwrite_another(finished_run):
    before = {file: file.stat().st_mtime_ns for file in finished_run.rglob("*")}
    done = script("train.py", "trainer=smoke", f"hydra.run.dir={finished_run}", cwd=finished_run.parents[2])
    assert done.returncode == 2
    assert "contains a run; resume it with run=" in done.stderr
    assert {file: file.stat().st_mtime_ns for file in finished_run.rglob("*")} == before


def test_a_run_cannot_be_resumed_as_a_sweep(finished_run):
    with pytest.raises(UserError, match="^run: a sweep starts new runs; leave out -m"):
        hydra_arguments([f"run={finished_run}", "-m"])


def test_each_precision_of_the_trainer_trains(tmp_path):
    """A logit of a mixed precision is in bf16, its weights in fp32."""
    (tmp_path / "noting.py").write_text(
        "import pathlib\nfrom lightning.pytorch import Callback\n\n\nclass Noting(Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        file = pathlib.Path(trainer.default_root_dir, 'dtype')\n"
        "        module.network.register_forward_hook(lambda *call: file.write_text(str(call[2].dtype)) and None)\n"
    )
    words = ("trainer.max_epochs=1", "trainer.precision=32-true,bf16-mixed,bf16-true,64-true")
    callback = "+trainer.callbacks.noting._target_=noting.Noting"
    data = tiny_data(tmp_path)
    done = Script(
        "train.py", "-m", *data, *TINY, *words, callback, cwd=tmp_path, before=importing_from(tmp_path)
    ).wait()
    assert done.returncode == 0, done.stderr
    jobs = [sweep_folder(tmp_path) / str(job) for job in range(4)]
    weights = [checkpoint(job)["state_dict"]["network.head.weight"].dtype for job in jobs]
    assert weights == [torch.float32, torch.float32, torch.bfloat16, torch.float64]
    logits = [(job / "dtype").read_text() for job in jobs]
    assert logits == ["torch.float32", "torch.bfloat16", "torch.bfloat16", "torch.float64"]


@pytest.mark.parametrize("name", ["question", "quick", "fast", "best"])
def test_each_experiment_without_a_sweep_runs(name, tmp_path):
    data = tiny_data(tmp_path, train=100, size=28)
    options = ["data.validation_images=20", "trainer.max_epochs=1"]
    options += ["~trainer.callbacks.dashboard"] if name != "quick" else []  # its pictures take longer than the training
    done = script("train.py", f"experiment={name}", *data, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert read_results(run_folder(tmp_path))["test/images"] == 70


@pytest.mark.parametrize(
    ("profiler", "pattern", "content"),
    [("simple", "fit-profile.txt", "run_training_batch"), ("pytorch", "fit-profile-*.pt.trace.json", "convolution")],
)
def test_a_profile_is_written_into_the_run_folder(profiler, pattern, content, tmp_path):
    train_tiny(tmp_path, f"trainer/profiler={profiler}", "trainer.max_epochs=1")
    assert any(content in file.read_text() for file in run_folder(tmp_path).glob(pattern))


def test_a_network_can_overfit_one_batch(tmp_path):
    train_tiny(tmp_path, "trainer=overfit", "trainer.max_epochs=40", "optimizer.lr=0.01", "model.dropout=0")
    epochs = rows(run_folder(tmp_path))
    assert len(epochs) == 40
    assert float(epochs[-1]["train/accuracy"]) == 1.0
    assert float(epochs[-1]["train/loss"]) < 0.1 * float(epochs[0]["train/loss"])


@pytest.mark.parametrize(
    "override",
    ["model=cnn_lstm", "model.lstm_units=7", "data.fold=1", "data.validation_images=50", "data.dataset=mnist",
     "data.grid=[4,4]", "data.orderings=[rows]", "optimizer._target_=torch.optim.RMSprop"],
)  # fmt: skip
def test_a_run_that_resumes_keeps_its_network_images_and_optimizer(override, finished_run):
    with pytest.raises(UserError, match=f"^{re.escape(override)}: a run resumes with its own config; change other val"):
        hydra_arguments([f"run={finished_run}", override])

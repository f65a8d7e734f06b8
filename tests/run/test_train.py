"""Tests train.py as a process, on a data set small enough for epochs of less than a second."""

import json
import re
import shlex
import shutil
import subprocess

import pytest
import torch
from omegaconf import OmegaConf

from quadrant_lstm.cli.arguments import hydra_arguments
from quadrant_lstm.data.images import load_images
from quadrant_lstm.errors import UserError
from quadrant_lstm.run.build import build_data
from quadrant_lstm.run.provenance import git_state
from quadrant_lstm.run.train import check_every_process_has_samples, errors_explained
from quadrant_lstm.run_folder import CONFIG, read_results, read_rows
from tests.configs import composed_config
from tests.folders import TINY, assert_same_weights, checkpoint_of, run_folder, sweep_folder, tiny_data
from tests.scripts import ROOT, Script, importing_from, refused, script, succeeds, train_tiny


def rows(run):
    return read_rows(run / "metrics.csv")


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


def test_results_metrics_and_checkpoint_agree(finished_run):
    results, epochs = read_results(finished_run), rows(finished_run)
    assert [row["epoch"] for row in epochs] == ["1", "2", "3"]
    assert all(float(value) > 0 for row in epochs for value in row.values())
    assert float(epochs[2]["train/loss"]) < float(epochs[0]["train/loss"])
    assert set(results) == {
        "test/accuracy", "test/loss", "test/images", "best_epoch", "keep", "monitor", "epochs", "seconds",
        *(f"{split}/{name}" for split in ("val", "test") for name in ("balanced_accuracy", "macro_f1")),
        "val/accuracy", "val/loss", "parameters",
        "samples_per_second", *(f"test/accuracy_step_{step}" for step in range(1, 5)),
    }  # fmt: skip
    best = max(reversed(epochs), key=lambda row: float(row["val/accuracy"]))  # ties go to the later epoch
    assert (results["best_epoch"], results["keep"], results["epochs"]) == (int(best["epoch"]), "best", 3)
    for name in ("val/accuracy", "val/loss", "val/balanced_accuracy", "val/macro_f1"):
        assert results[name] == float(best[name])
    assert checkpoint_of(finished_run, "best")["epoch"] + 1 == results["best_epoch"]
    assert results["test/images"] == 70
    assert results["test/accuracy_step_4"] == results["test/accuracy"]
    assert 0 < results["seconds"] < 60


def test_provenance_contains_command_data_versions_and_commit(smoke_run):
    found = json.loads((smoke_run / "provenance.json").read_text())
    *_, script, argument = shlex.split(found["command"])
    assert script.endswith("train.py") and argument == "trainer=smoke"
    assert found["data"]["sha256"] == load_images("mnist", None).sha256()
    assert found["versions"]["torch"] == torch.__version__
    assert (found["seed"], found["git"]) == (1, git_state(ROOT / "src"))


def test_changed_files_of_a_checkout_are_named_except_those_in_outputs(tmp_path):
    (tmp_path / "outputs").mkdir()
    for name in ("code.py", "outputs/.gitkeep"):
        (tmp_path / name).touch()
    assert git_state(tmp_path) is None
    for command in ("init", "add .", "-c user.name=A -c user.email=a@example.org commit -m first"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "outputs/.gitkeep").unlink()
    assert git_state(tmp_path)["changed"] == []
    for name in ("code.py", "new.py"):
        (tmp_path / name).write_text("2")
    assert git_state(tmp_path / "outputs")["changed"] == [" M code.py", "?? new.py"]


def test_screen_and_log_show_shapes_epochs_and_results(finished_run):
    for file in (finished_run / "train.log", finished_run.parents[2] / "stdout"):
        text = file.read_text()
        assert "encoder.conv1  Conv2d       [N, T, 4, 14, 2]" in text
        assert re.search(r"epoch 3/3  train/loss .* val/accuracy .* samples/s", text)
        assert re.search(r"test accuracy  \d+\.\d\d %  \(70 samples, best epoch \d", text)
        assert f"run folder     {finished_run.relative_to(finished_run.parents[2])}" in text
        assert "tensorboard --logdir outputs" in text


def test_a_moved_and_resumed_run_equals_an_uninterrupted_run_exactly(finished_run, tmp_path):
    done = train_tiny(tmp_path, "trainer.max_epochs=1", "trainer.logger=false")
    assert "dashboard" not in done.stdout
    run = run_folder(tmp_path).rename(tmp_path / "moved")
    assert {file.name for file in run.iterdir()} == {
        *(".hydra", ".lock", "checkpoints", "metrics.csv", "provenance.json", "results.json", "train.log")
    }
    again = succeeds("train.py", "run=moved", "trainer.max_epochs=3", cwd=tmp_path)
    assert "resuming moved after its last finished epoch, with trainer.max_epochs=3" in again.stdout
    assert not list(tmp_path.glob("outputs/*/*"))
    assert_same_weights(finished_run, run)
    for old, new in zip(rows(finished_run), rows(run), strict=True):
        speed = ("train/samples_per_second", "train/epoch_seconds")
        assert {k: v for k, v in old.items() if k not in speed} == {k: v for k, v in new.items() if k not in speed}
    assert read_results(finished_run)["test/loss"] == read_results(run)["test/loss"]


def test_a_run_interrupted_before_its_test_is_tested_when_resumed(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "results.json").unlink()
    succeeds("train.py", "run=run", TINY[0], cwd=tmp_path)
    one, two = (read_results(folder) for folder in (finished_run, run))
    assert one.pop("seconds") >= two.pop("seconds") > 0
    assert one == two
    assert (run / "metrics.csv").read_bytes() == (finished_run / "metrics.csv").read_bytes()


def test_a_finished_run_is_trained_for_longer_on_request_unless_its_schedule_has_a_fixed_length(tmp_path):
    train_tiny(tmp_path, "schedule=onecycle", "trainer.max_epochs=1")
    run = run_folder(tmp_path)
    assert 0 < float(rows(run)[-1]["train/learning_rate"]) < 1e-5
    config = (run / CONFIG).read_bytes()
    for word, line in {
        "trainer.max_epochs=1": "run: .* has finished its 1 epochs; to train longer, start a new run with init=outputs",
        "trainer.max_epochs=2": "trainer.max_epochs: 20 steps, but this run's schedule was made for 10; restore it and",
    }.items():
        assert re.match(line, refused("train.py", "run=latest", word, cwd=tmp_path))
        assert (run / CONFIG).read_bytes() == config


@pytest.mark.parametrize(
    "word",
    ["model=cnn_lstm", "model.lstm_units=7", "data.fold=1", "data.validation_images=50", "data.dataset=mnist",
     "data.grid=[4,4]", "data.orderings=[rows]", "data.orderings.0=[4,3,2,1]", "optimizer._target_=torch.optim.RMSprop",
     "optimizer.lr=0.1", "schedule.gamma=0.5", "init=latest", "temperature=2", "hydra.run.dir=x", "-m",
     "--config-dir=conf", "--config-name=train"],
)  # fmt: skip
def test_a_run_resumes_with_its_own_network_data_optimizer_and_schedule(word, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    config = OmegaConf.load(tmp_path / "run" / CONFIG)
    config.schedule = {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "_partial_": True, "gamma": 0.9}
    OmegaConf.save(config, tmp_path / "run" / CONFIG)
    refusals = {
        "-m": "run: a sweep starts new runs; leave out -m",
        "--config-dir=conf": "--config-dir: a run resumes with its own config; leave this option out.",
        "--config-name=train": "--config-name: a run resumes with its own config; leave this option out.",
    }
    with pytest.raises(UserError, match=f"^{re.escape(refusals.get(word, f'{word}: '))}"):
        hydra_arguments([f"run={tmp_path / 'run'}", "trainer.max_epochs=4", word])


def test_each_process_needs_a_sample(tmp_path):
    data = build_data(composed_config(*tiny_data(tmp_path), "data.validation_images=1"))
    check_every_process_has_samples(data, 1)
    with pytest.raises(UserError, match=r"^trainer\.devices: 2 processes, but only 1 validation sample; use fewer "):
        check_every_process_has_samples(data, 2)


@pytest.mark.parametrize(
    ("precision", "dtype", "profiler", "file", "stage"),
    [("bf16-mixed", torch.float32, "simple", "fit-profile.txt", "run_training_batch"),
     ("bf16-true", torch.bfloat16, "pytorch", "fit-profile-*.pt.trace.json", "convolution")],
)  # fmt: skip
def test_a_run_in_half_precision_is_profiled(precision, dtype, profiler, file, stage, tmp_path):
    tiny = TINY if profiler == "simple" else TINY[1:]  # with the dashboard
    words = (f"trainer.precision={precision}", f"trainer/profiler={profiler}", "trainer.max_epochs=1")
    done = succeeds("train.py", *tiny_data(tmp_path), *tiny, *words, cwd=tmp_path)
    run = run_folder(tmp_path)
    assert "FutureWarning" not in done.stderr
    assert checkpoint_of(run)["state_dict"]["network.head.weight"].dtype == dtype
    assert any(stage in profile.read_text() for profile in run.glob(file))


UNSET_GRADIENTS = """
import torch
from torch import nn

class Network(nn.Sequential):
    def __init__(self, num_classes):
        conv = nn.Conv2d(4, 16, 3, stride=2, padding=1)  # of whose kernel only the middle meets the map's one pixel
        super().__init__(nn.AdaptiveAvgPool3d(1), nn.Flatten(2), nn.Unflatten(2, (1, 1)), conv, nn.Flatten(),
                         nn.Linear(16, num_classes))
        conv.weight.register_hook(lambda gradient: gradient.index_fill(2, torch.tensor([0, 2]), {unset}))
"""


def test_gradients_that_torch_leaves_unset_in_bf16_change_nothing(tmp_path):
    losses = []
    for name, unset in [("zero", "0.0"), ("unset", "float('nan')")]:
        (model := (folder := tmp_path / name) / "conf" / "model").mkdir(parents=True)
        (model / "own.yaml").write_text("_target_: own.Network")
        (folder / "own.py").write_text(UNSET_GRADIENTS.replace("{unset}", unset))
        data, tiny = tiny_data(folder), [word for word in TINY if not word.startswith("model.")]
        words = ("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=0.1", "optimizer.fused=false")
        own = ("--config-dir=conf", "model=own")
        succeeds("train.py", *data, *tiny, *own, *words, cwd=folder, before=importing_from(folder))
        losses.append([row["train/loss"] for row in rows(run_folder(folder))])
    assert losses[0] == losses[1]


def test_each_experiment_without_a_sweep_runs(tmp_path):
    data = tiny_data(tmp_path, train=40, test=20, size=28)
    words = ("-m", "experiment=question,quick,fast,best", "data.validation_images=20", "trainer.max_epochs=1", TINY[0])
    done = succeeds("train.py", *data, *words, cwd=tmp_path)
    assert "Warning" not in done.stderr
    jobs = [sweep_folder(tmp_path) / str(job) for job in range(4)]
    assert [read_results(job)["test/images"] for job in jobs] == 4 * [20]


def test_a_network_can_overfit_one_batch(tmp_path):
    train_tiny(tmp_path, "trainer=overfit", "trainer.max_epochs=20", "optimizer.lr=0.03", "model.dropout=0")
    assert float(rows(run_folder(tmp_path))[-1]["train/accuracy"]) == 1.0


# Which epoch is kept: the best on validation images, or the last


def kept(run) -> tuple[dict, int]:
    """Returns the results and the number of the epoch in best.ckpt."""
    return read_results(run), checkpoint_of(run, "best")["epoch"] + 1


def test_without_validation_images_all_are_trained_on_and_the_last_epoch_is_tested(tmp_path):
    words = ("data.validation_images=0", "data.batch_size=50", "trainer.max_epochs=2")
    done = script("train.py", *tiny_data(tmp_path), *TINY[1:], *words, cwd=tmp_path)
    run = run_folder(tmp_path)
    results, epoch = kept(run)
    assert (epoch, results["best_epoch"], results["keep"]) == (2, 2, "last")
    assert not [name for name in results if name.startswith("val/")]
    assert checkpoint_of(run)["global_step"] == 2 * 200 / 50
    assert "last epoch 2 of 2" in done.stdout
    assert not re.search("lightning", done.stderr, re.IGNORECASE)
    assert all(row["val/accuracy"] == "" for row in rows(run))
    report = (run / "report.html").read_text()
    assert "Last epoch, which was tested<td>2 of 2" in report
    assert "Validation accuracy" not in report


def test_the_last_epoch_is_kept_on_request_and_the_following_ones_are_compared(finished_run, tmp_path):
    before, epoch_before = kept(finished_run)
    for keep in ("best", "last"):
        shutil.copytree(finished_run, tmp_path / keep)
        (tmp_path / keep / "error.json").write_text("{}")  # as if it had been the job of a sweep
        words = ("trainer.max_epochs=4", "optimizer.lr=1000", f"keep={keep}", TINY[0])  # no network survives this rate
        succeeds("train.py", f"run={keep}", *words, cwd=tmp_path)
        assert not (tmp_path / keep / "error.json").exists()
    best, best_epoch = kept(tmp_path / "best")
    assert (best["val/accuracy"], best_epoch, best["keep"]) == (before["val/accuracy"], epoch_before, "best")
    last, last_epoch = kept(tmp_path / "last")
    accuracy = float(rows(tmp_path / "last")[-1]["val/accuracy"])
    assert (last["val/accuracy"], last_epoch, last["keep"]) == (accuracy, 4, "last")
    assert accuracy < before["val/accuracy"]
    words = ("run=last", "trainer.max_epochs=6", "optimizer.lr=1e-12", "keep=best")
    succeeds("train.py", *words, cwd=tmp_path)
    accuracies = [float(row["val/accuracy"]) for row in rows(tmp_path / "last")]
    results, epoch = kept(tmp_path / "last")
    assert (results["val/accuracy"], epoch) == max((accuracies[number - 1], number) for number in (5, 6))


def test_an_epoch_is_kept_by_the_monitored_metric_also_if_a_resumed_run_has_another(tmp_path):
    words = ("monitor=val/loss", "optimizer.lr=0.03", "trainer.max_epochs=4", "class_weights=balanced")
    train_tiny(tmp_path, *words)
    run = run_folder(tmp_path)
    losses = {int(row["epoch"]): float(row["val/loss"]) for row in rows(run)}
    results, epoch = kept(run)
    assert (results["monitor"], results["val/loss"]) == ("val/loss", min(losses.values()))
    assert losses[epoch] == min(losses.values())
    again = ("run=latest", "monitor=val/macro_f1", "optimizer.lr=1000", "class_weights=null", "trainer.max_epochs=6")
    succeeds("train.py", *again, cwd=tmp_path)
    values = {int(row["epoch"]): float(row["val/macro_f1"]) for row in rows(run)}
    results, resumed = kept(run)
    assert resumed == max((epoch, 5, 6), key=lambda number: (values[number], number))
    assert (results["monitor"], results["val/macro_f1"]) == ("val/macro_f1", values[resumed])


def test_a_search_refuses_to_do_without_validation_images(tmp_path):
    words = ("data.validation_images=0", "hydra/sweeper=optuna", "model.lstm_units=5,6", "hydra.sweeper.n_trials=2")
    line = "data.validation_images: 0, but a search over model.lstm_units ranks its jobs by val/accuracy; hold some"
    assert refused("train.py", "-m", *words, cwd=tmp_path).startswith(line)
    assert not list(tmp_path.glob("outputs/*"))


# Memory


def test_a_batch_that_is_too_large_is_reported_in_one_line(tmp_path):
    cfg, remedy = OmegaConf.create({"data": {"batch_size": 100000}}), "write a smaller value, or choose a smaller model"
    with (
        pytest.raises(UserError, match=f"a step of 100,000 samples does not fit into memory; {remedy}"),
        errors_explained(cfg, tmp_path, None),
    ):
        torch.empty(2**60)


@pytest.mark.reliability
@pytest.mark.timeout(300)
def test_memory_does_not_grow_over_the_epochs(tmp_path, record_figure):
    process = Script("train.py", "trainer.max_epochs=10", "trainer.limit_train_batches=100", cwd=tmp_path)
    megabytes = [process.resident_megabytes() for line in process.lines() if " train/loss " in line]
    assert process.returncode == 0, process.stderr
    assert len(megabytes) == 10
    record_figure(f"memory after the 2nd and the 10th epoch: {megabytes[1]:.0f} and {megabytes[9]:.0f} MB")
    assert megabytes[9] - megabytes[1] < 10

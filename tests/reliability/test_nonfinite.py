"""Tests that a non-finite loss or gradient ends a run before it changes the weights and that no result is NaN."""

import math
import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from quadrant_lstm.callbacks.training import Finite
from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.image_sequences import ImageSequences
from quadrant_lstm.data.orderings import QUADRANTS
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.run_folder import read_results
from tests.folders import TINY, checkpoint_of, run_folder, tiny_data
from tests.networks import CONSTANT, fp16, trainer
from tests.scripts import refused, script, succeeds

RUNS = 20


class Weights(nn.Module):
    """Has three weights, and the same logits for all frames: what `change` makes of the weights."""

    def __init__(self, change):
        super().__init__()
        self.weights, self.change = nn.Parameter(torch.zeros(3)), change

    def forward(self, frames):
        return self.change(self.weights).expand(len(frames), 3)


def root():
    """Returns a network with a finite loss and an infinite gradient at 0."""
    return Weights(torch.sqrt)


class Explosion(Weights):
    """Has non-finite logits from batch number `batch` on."""

    def __init__(self, batch: int):
        super().__init__(lambda weights: weights / float(self.batch >= 0))
        self.batch = batch

    def forward(self, frames):
        self.batch -= 1
        return super().forward(frames)


@pytest.fixture
def data(idx_folder):
    augmentation = Augmentation()
    return ImageSequences("idx", str(idx_folder), QUADRANTS, [[1, 2, 3, 4]], 40, 0, 16, 1, augmentation)


def fit(network, data, **options):
    classifier = Classifier(network, partial(torch.optim.SGD, lr=1.0), CONSTANT, data.spec)
    trainer(max_epochs=2, num_sanity_val_steps=0, callbacks=[Finite()], **options).fit(classifier, datamodule=data)


def test_a_nonfinite_gradient_changes_no_weight_and_the_remedy_depends_on_the_schedule(data, monkeypatch):
    network, gradient = root(), "train: the norm of the gradient is (inf|nan) in epoch 1, at training step 1, .*; "
    with pytest.raises(UserError, match=f"{gradient}lower optimizer.lr; run=FOLDER resumes after the last finished ep"):
        fit(network, data)
    assert network.weights.tolist() == [0, 0, 0]
    monkeypatch.setattr("quadrant_lstm.callbacks.training.is_constant", lambda scheduler: False)
    with pytest.raises(UserError, match=f"{gradient}start a new run with a lower optimizer.lr"):
        fit(root(), data)


def impossible():
    """Returns a network with an infinite loss and finite gradients: the last class is impossible."""
    return Weights(lambda weights: weights + torch.tensor([0.0, 0.0, -math.inf]))


@pytest.mark.parametrize(
    ("network", "in_fp16", "where"),  # 10 batches of training, then 3 of validation
    [(impossible(), False, "train: the loss is inf in epoch 1, at training step 1,"),
     (Explosion(0), False, "train: the loss is nan in epoch 1, at training step 1,"),
     (Explosion(7), False, "train: the loss is nan in epoch 1, at training step 8,"),
     (Explosion(11), False, "val: the loss is nan in epoch 1, after training step 10,"),
     (Explosion(13), False, "train: the loss is nan in epoch 2, at training step 11,"),
     (Explosion(0), True, "train: the loss is nan in epoch 1, at training step 10,"),
     (Explosion(10), True, "val: the loss is nan in epoch 1, after training step 10,")],
)  # fmt: skip
def test_the_message_names_stage_epoch_and_step(network, in_fp16, where, data):
    """In fp16, of the training steps only the last one is checked."""
    with pytest.raises(UserError, match=where):
        fit(network, data, plugins=fp16() if in_fp16 else None)


@pytest.mark.parametrize(("batch", "seen"), [(2, 5), (7, 9), (9, 9)])
def test_a_gpu_run_is_checked_at_logged_steps_and_names_the_first_step(batch, seen, data, monkeypatch):
    monkeypatch.setattr(Classifier, "device", SimpleNamespace(type="cuda"))
    network = Explosion(batch)
    with pytest.raises(UserError, match=f"train: the loss is nan in epoch 1, at training step {batch + 1},"):
        fit(network, data, log_every_n_steps=5)
    assert batch - network.batch - 1 == seen  # checked at logged steps and after the last of the epoch


def test_in_fp16_training_steps_with_a_nonfinite_gradient_are_skipped(data):
    network = root()
    fit(network, data, plugins=fp16())
    assert network.weights.tolist() == [0, 0, 0]


def test_a_diverging_run_ends_with_one_line_and_keeps_its_checkpoint(tmp_path):
    options = (*tiny_data(tmp_path), *TINY, "optimizer=sgd", "trainer.max_epochs=1")
    succeeds("train.py", *options, cwd=tmp_path)
    run = run_folder(tmp_path)
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    (run / "report.html").touch()
    line = refused("train.py", f"run={run}", "trainer.max_epochs=2", "optimizer.lr=1e30", cwd=tmp_path)
    assert re.match("train: the (loss|norm of the gradient) is (nan|inf) in epoch 2, at training ", line)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
    assert not (run / "results.json").exists() and not (run / "report.html").exists()
    again = succeeds("train.py", f"run={run}", "optimizer.lr=0.001", cwd=tmp_path)  # max_epochs=2 is kept
    assert "resuming" in again.stdout and "with optimizer.lr=0.001" in again.stdout
    assert checkpoint_of(run)["epoch"] + 1 == 2


@pytest.mark.reliability
@pytest.mark.timeout(1200)
def test_no_result_is_nan_at_a_hundred_times_the_learning_rate(tmp_path, record_figure):
    finished = 0
    for seed in range(RUNS):
        cwd = tmp_path / str(seed)
        cwd.mkdir()
        done = script(
            "train.py", f"seed={seed}", "optimizer.lr=0.1", "trainer.max_epochs=2", "trainer.limit_train_batches=40",
            "trainer.limit_val_batches=4", "trainer.limit_test_batches=4", cwd=cwd,
        )  # fmt: skip
        run = run_folder(cwd)
        if (run / "results.json").exists():
            finished += 1
            assert math.isfinite(read_results(run)["test/loss"])
        else:
            assert done.returncode == 2
        for file in run.glob("checkpoints/*.ckpt"):
            assert all(weights.isfinite().all() for weights in checkpoint_of(run, file.stem)["state_dict"].values())
    record_figure(f"at 100 times the learning rate {finished} of {RUNS} runs finished, none with NaN")

"""Tests what happens at training steps and at the ends of epochs."""

from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm
from torch.optim import SGD, Adam
from torch.utils.data import DataLoader

from quadrant_lstm.callbacks.checkpoints import Checkpoints, read_checkpoint, write_row
from quadrant_lstm.callbacks.training import EMA, EarlyStopping, Finite
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.run_folder import LAST, last_epoch, read_results, read_rows
from tests.folders import run_folder
from tests.networks import CONSTANT, SPEC, Flat, batches, fp16, trainer
from tests.scripts import refused, script, succeeds, train_tiny

# The average of the weights


def test_floats_are_averaged_and_integers_such_as_the_count_of_batches_are_copied():
    ema = EMA(0.75)
    ema.num_steps = 999
    ema.average = {"mean": torch.zeros(3), "count": torch.tensor(0)}
    ema.weights = {"mean": torch.ones(3), "count": torch.tensor(7)}
    ema.on_train_batch_end(SimpleNamespace(global_step=1000))
    assert (ema.average["mean"].tolist(), ema.average["count"].item()) == ([0.25, 0.25, 0.25], 7)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_average_is_updated_once_per_training_step(accumulated):
    torch.manual_seed(0)
    frames, labels = torch.randn(48, 4, 1, 2, 2), torch.randint(0, 3, (48,))
    classifier = Classifier(Flat(), partial(SGD, lr=0.1), CONSTANT, SPEC)
    plain, average = Flat(), 0.0
    plain.load_state_dict(classifier.network.state_dict())
    optimizer = SGD(plain.parameters(), lr=0.1)
    pairs = zip(frames.split(8 * accumulated), labels.split(8 * accumulated), strict=True)
    for step, (batch, target) in enumerate(pairs, 1):
        optimizer.zero_grad()
        cross_entropy(plain(batch), target).backward()
        optimizer.step()
        decay = step / (9 + step) if step > 1 else 0.0  # below its limit of 0.9
        average = decay * average + (1 - decay) * plain.linear.weight.detach()
    training = trainer(max_epochs=1, log_every_n_steps=1, accumulate_grad_batches=accumulated, callbacks=[EMA(0.9)])
    training.fit(classifier, batches(frames, labels, 8))
    torch.testing.assert_close(classifier.network.linear.weight.detach(), average)


def test_a_layer_with_two_names_is_averaged_once():
    classifier, ema = Classifier(Flat(), partial(SGD, lr=0.1), CONSTANT, SPEC), EMA(0.9)
    classifier.network.again = classifier.network.linear
    training = trainer(max_epochs=1, callbacks=[ema])
    ema.on_fit_start(training, classifier)
    before = classifier.network.linear.weight.detach().clone()
    ema.average = {name: value + 1 for name, value in ema.average.items()}
    ema.swap(training, classifier)
    torch.testing.assert_close(classifier.network.again.weight.detach(), before + 1)
    ema.swap(training, classifier)
    torch.testing.assert_close(classifier.network.again.weight.detach(), before)
    checkpoint = {"state_dict": classifier.state_dict()}
    ema.on_save_checkpoint(training, classifier, checkpoint)
    assert checkpoint["state_dict"].keys() == classifier.state_dict().keys()
    for name in ("linear", "again"):
        torch.testing.assert_close(checkpoint["state_dict"][f"network.{name}.weight"], before + 1)


def test_a_run_that_turns_the_average_off_continues_with_the_weights():
    classifier, resuming = Classifier(Flat(), partial(SGD, lr=0.1), CONSTANT, SPEC), trainer()
    resuming.state.fn = TrainerFn.FITTING
    average = {name: value.clone() for name, value in classifier.state_dict().items()}
    weights = {name: value + 1 for name, value in average.items()}
    checkpoint = {"state_dict": average, "current_model_state": weights}
    Checkpoints("best", "val/accuracy").on_load_checkpoint(resuming, classifier, checkpoint)  # also without an EMA
    ema = EMA(None)
    ema.on_load_checkpoint(resuming, classifier, checkpoint)
    ema.on_fit_start(resuming, classifier)
    assert all(torch.equal(value, weights[name]) for name, value in classifier.state_dict().items())
    assert not ema.average


def test_the_average_is_saved_in_the_precision_of_the_training_and_tested(tmp_path):
    train_tiny(tmp_path, "trainer.callbacks.ema.decay=0.9", "trainer.precision=64-true", "trainer.max_epochs=1")
    run = run_folder(tmp_path)
    last = read_checkpoint(run / "checkpoints/last.ckpt")
    weights, current = last["state_dict"], last["current_model_state"]
    assert weights["network.head.weight"].dtype == torch.float64
    assert any((weights[name] != current[name]).any() for name in current)
    tested = script("evaluate.py", f"run={run}", cwd=tmp_path)
    results = read_results(run)
    for name in ("test/accuracy", "test/loss"):
        assert f"{name:22}  {results[name]}\n" in tested.stdout


# The logged norm of the gradient


class Norms(pl.Callback):
    def __init__(self):
        self.norms = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.norms.append(get_total_norm([weights.grad for weights in module.parameters()]).item())


class Points(pl.loggers.logger.DummyLogger):
    norms = ()

    def log_metrics(self, metrics, step):
        self.norms = (*self.norms, metrics["train/gradient_norm"])


@pytest.mark.parametrize("optimizer", [partial(SGD, lr=0.0), partial(Adam, lr=0.0, fused=True)])
def test_the_logged_gradient_norm_is_the_total_norm_also_if_gradients_are_scaled_for_fp16(optimizer):
    torch.manual_seed(0)
    frames, labels = torch.randn(24, 4, 1, 2, 2), torch.randint(0, 3, (24,))
    classifier, logged, norms = Classifier(Flat(), optimizer, CONSTANT, SPEC), [], []
    for plugins in (None, fp16()):
        logger, callbacks = Points(), [Finite(), Norms()]
        training = trainer(logger, max_epochs=1, log_every_n_steps=1, callbacks=callbacks, plugins=plugins)
        training.fit(classifier, batches(frames, labels, 8))
        logged.append(list(logger.norms))
        norms.append(callbacks[1].norms)
    assert logged[0] == norms[0]
    assert logged[1] == pytest.approx(logged[0], rel=0.02)
    assert len(set(logged[0])) == 3


# Early stopping and the rows of epochs


PATIENCE = "trainer.callbacks.early_stopping.patience"
NINE_EPOCHS = ("trainer.max_epochs=9", "trainer/callbacks=early_stopping")


class Logs(pl.LightningModule):
    """Logs a given value in each epoch."""

    def __init__(self, name, values):
        super().__init__()
        self.name, self.values = name, values

    def training_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        pass

    def on_train_epoch_end(self):
        self.log(self.name, self.values[self.current_epoch])


@pytest.mark.parametrize(
    ("monitor", "min_delta", "values", "epochs"),
    [
        ("val/accuracy", 0.0, [0.5, 0.6, 0.6, 0.6, 0.6, 0.9], 4),
        ("val/loss", 0.0, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 6),
        ("val/loss", 2.0, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 3),
        ("val/accuracy", 0.0, [0.5, 0.6, 0.7, 0.8, 0.8, 0.8], 6),  # patience ends with the last epoch
    ],
)
def test_training_stops_after_two_epochs_without_improvement(monitor, min_delta, values, epochs):
    stopping = EarlyStopping(monitor, patience=2, min_delta=min_delta)
    training = trainer(max_epochs=6, callbacks=[stopping])
    training.fit(Logs(monitor, values), DataLoader(range(1)))
    assert training.current_epoch == epochs
    assert stopping.results() == ({"stopped_early": True} if epochs < 6 else {})


def column(run, name="epoch"):
    return [float(row[name]) for row in read_rows(run / "metrics.csv")]


def test_a_run_that_stopped_early_is_resumed_only_with_more_patience_or_none(tmp_path):
    done = train_tiny(tmp_path, *NINE_EPOCHS, "optimizer.lr=1e-30", "model.dropout=0", f"{PATIENCE}=2")
    assert "val/accuracy has not improved for 2 epochs; training stops" in done.stdout
    run = run_folder(tmp_path)
    assert read_results(run)["stopped_early"] is True
    assert column(run) == [1, 2, 3]
    line = f"has finished its 3 epochs, by early stopping; to train longer, raise {PATIENCE}"
    assert line in refused("train.py", f"run={run}", cwd=tmp_path)
    (run / "results.json").unlink()  # as if it had been interrupted after it stopped
    succeeds("train.py", f"run={run}", cwd=tmp_path)
    assert column(run) == [1, 2, 3]
    assert read_results(run)["stopped_early"] is True
    succeeds("train.py", f"run={run}", f"{PATIENCE}=3", cwd=tmp_path)
    assert column(run) == [1, 2, 3, 4]
    without = ("~trainer.callbacks.early_stopping", "trainer.max_epochs=5")
    succeeds("train.py", f"run={run}", *without, cwd=tmp_path)
    assert column(run) == [1, 2, 3, 4, 5]


def test_an_epoch_that_was_stopped_is_trained_again(finished_run, tmp_path):
    stop = "+trainer.callbacks.timer={_target_: lightning.pytorch.callbacks.Timer, duration: {milliseconds: 1}}"
    train_tiny(tmp_path, "trainer.max_epochs=1")
    run = run_folder(tmp_path)
    stopped = succeeds("train.py", f"run={run}", "trainer.max_epochs=3", stop, cwd=tmp_path)
    assert "epoch 2 was stopped, and is not saved" in stopped.stdout
    assert column(run) == [1]
    succeeds("train.py", f"run={run}", "~trainer.callbacks.timer", cwd=tmp_path)
    one, other = (read_checkpoint(folder / LAST)["state_dict"] for folder in (finished_run, run))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_an_epoch_appends_a_row_and_a_repeated_one_replaces_its_row_and_the_later_ones(tmp_path):
    assert last_epoch(tmp_path) is None
    for epoch, loss in ((1, 0.5), (2, 0.5), (3, 0.5), (2, 0.25)):
        write_row(tmp_path / "metrics.csv", ("epoch", "train/loss"), {"epoch": epoch, "train/loss": loss})
    assert (column(tmp_path), column(tmp_path, "train/loss")) == ([1, 2], [0.5, 0.25])
    assert last_epoch(tmp_path)["train/loss"] == "0.25"

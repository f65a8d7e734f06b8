from functools import partial

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.callbacks.training import EMA
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.run_folder import read_results
from tests.folders import run_folder
from tests.networks import CONSTANT, SPEC, Flat, batches, trainer
from tests.scripts import script, train_tiny


def test_the_average_follows_the_decay_that_starts_low():
    average, ema, by_hand = torch.tensor(-1e6), EMA(0.99), 0.0
    for step in range(1, 1200):
        ema.update({"weight": average}, {"weight": torch.tensor(float(step))}, step)
        decay = min(0.99, step / (9 + step)) if step > 1 else 0.0
        by_hand = decay * by_hand + (1 - decay) * step
    assert average.item() == pytest.approx(by_hand)
    assert 1199 - average.item() < 101  # a memory of 1 / (1 - decay) steps


def test_floats_are_averaged_and_integers_such_as_the_count_of_batches_are_copied():
    average = {"mean": torch.zeros(3), "count": torch.tensor(0)}
    EMA(0.75).update(average, {"mean": torch.ones(3), "count": torch.tensor(7)}, 1000)
    assert (average["mean"].tolist(), average["count"].item()) == ([0.25, 0.25, 0.25], 7)


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


def test_a_run_that_turns_the_average_off_continues_with_the_weights():
    classifier, ema, resuming = Classifier(Flat(), partial(SGD, lr=0.1), CONSTANT, SPEC), EMA(None), trainer()
    resuming.state.fn = TrainerFn.FITTING
    average = {name: value.clone() for name, value in classifier.state_dict().items()}
    weights = {name: value + 1 for name, value in average.items()}
    ema.on_load_checkpoint(resuming, classifier, {"state_dict": average, "current_model_state": weights})
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
        assert f"{name:20}  {results[name]}\n" in tested.stdout

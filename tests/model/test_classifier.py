import math
from collections import Counter
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, CyclicLR, ExponentialLR, OneCycleLR

from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.data.orderings import SequenceSpec, numbered_names
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.classifier import Classifier, average_windows
from quadrant_lstm.model.encoder import Backbone
from tests.networks import CONSTANT, SPEC, Flat, batches, clip_network, trainer

SGD = partial(torch.optim.SGD, lr=0.1)


class FirstPixelClassifier(nn.Module):
    """Predicts, after every step, the class whose number is the first pixel of that step's frame."""

    def logits_per_step(self, frames):
        return one_hot(frames[:, :, 0, 0, 0].long(), 3).float()

    def forward(self, frames):
        return self.logits_per_step(frames)[:, -1]


def test_metrics_of_a_network_in_bf16_have_as_many_digits_as_others():
    torch.manual_seed(0)
    frames, labels = torch.randn(300, 4, 1, 2, 2), torch.randint(0, 3, (300,))
    classifier, validating = Classifier(Flat(), SGD, CONSTANT, SPEC), trainer(precision="bf16-true")
    validating.validate(classifier, batches(frames, labels, 30))
    correct = 300 * validating.callback_metrics["val/accuracy"].item()
    assert correct == pytest.approx(round(correct), abs=1e-3)


def test_the_accuracy_of_a_step_counts_the_predictions_after_it():
    labels = torch.tensor([0, 1, 2, 1, 2, 2])
    frames = torch.zeros(6, 4, 1, 2, 2)
    for step in range(4):
        frames[: step + 2, step] = labels[: step + 2, None, None, None]  # every step adds a correct prediction
    classifier = Classifier(FirstPixelClassifier(), SGD, CONSTANT, SPEC)
    trainer().test(classifier, batches(frames, labels, 4), verbose=False)
    results = classifier.test_results()
    assert [results[f"test/accuracy_step_{step}"] for step in range(1, 5)] == [2 / 6, 3 / 6, 4 / 6, 5 / 6]
    assert results["test/accuracy"] == 5 / 6


class GivenLogits(nn.Module):
    """Its frames are the logits."""

    def forward(self, frames):
        return frames.flatten(1)


@pytest.mark.parametrize("num_classes", [9, 12])
def test_metrics_are_means_over_images_or_over_the_classes_that_have_samples(num_classes):
    torch.manual_seed(0)
    labels = torch.randint(0, num_classes - 2, (40,)).square() // num_classes  # unequal, and some without samples
    logits = torch.randn(40, 1, 1, 1, num_classes)
    logits[:30, 0, 0, 0] += 2 * one_hot(labels[:30], num_classes)
    spec = SequenceSpec((1, 1, num_classes), 1, numbered_names(num_classes))
    classifier = Classifier(GivenLogits(), SGD, CONSTANT, spec)
    trainer().test(classifier, batches(logits, labels, 7), verbose=False)
    pairs, recalls, f1s = [], [], []
    for frame, label in zip(logits.flatten(1).tolist(), labels.tolist(), strict=True):
        pairs.append((label, frame.index(max(frame))))
    for number in set(labels.tolist()):
        hits = sum(pair == (number, number) for pair in pairs)
        recalls.append(hits / sum(true == number for true, _ in pairs))
        precision = hits / max(1, sum(predicted == number for _, predicted in pairs))
        f1s.append(2 * precision * recalls[-1] / (precision + recalls[-1]) if hits else 0.0)
    results = classifier.test_results()
    accuracy = sum(label == predicted for label, predicted in pairs) / 40
    assert (results["test/images"], results["test/accuracy"]) == (40, accuracy)
    assert results["test/loss"] == pytest.approx(cross_entropy(logits.flatten(1), labels).item(), abs=1e-6)
    assert {pair: classifier.test_confusion[pair] for pair in pairs} == Counter(pairs)
    absent = {predicted for _, predicted in pairs} - set(labels.tolist())
    assert absent and len(recalls) < num_classes  # a class without samples that was predicted
    assert results["test/balanced_accuracy"] == pytest.approx(sum(recalls) / len(recalls))
    assert results["test/macro_f1"] == pytest.approx(sum(f1s) / len(f1s))
    ranks = [sorted(frame, reverse=True).index(frame[label])
             for frame, label in zip(logits.flatten(1).tolist(), labels.tolist(), strict=True)]  # fmt: skip
    top5 = {"test/top5_accuracy": sum(rank < 5 for rank in ranks) / 40} if num_classes >= 10 else {}
    assert {name: value for name, value in results.items() if "top5" in name} == top5


def test_frozen_weights_are_not_given_to_the_optimizer():
    network = nn.Sequential(nn.Flatten(2), nn.Linear(4, 4).requires_grad_(False), Flat())
    classifier = Classifier(network, SGD, CONSTANT, SPEC)
    (group,) = classifier.configure_optimizers()["optimizer"].param_groups
    assert [tuple(weights.shape) for weights in group["params"]] == [(3, 16), (3,)]


@pytest.mark.parametrize("lr_factor", [1.0, 0.1])
def test_an_encoder_that_is_trained_later_has_a_group_of_its_own(lr_factor):
    encoder = partial(Backbone, name="shufflenet_v2_x0_5", weights=None, frozen=1, lr_factor=lr_factor, size=None)
    network = clip_network((3, 32, 32), encoder=encoder)
    classifier = Classifier(network, SGD, CONSTANT, SPEC)
    others, of_encoder = classifier.configure_optimizers()["optimizer"].param_groups
    assert {*map(id, of_encoder["params"])} == {*map(id, network.encoder.parameters())}
    assert (others["lr"], of_encoder["lr"]) == pytest.approx((0.1, 0.1 * lr_factor))
    classifier.schedule = partial(CyclicLR, base_lr=0.01, max_lr=0.1, cycle_momentum=False)
    others, of_encoder = classifier.configure_optimizers()["optimizer"].param_groups
    assert (others["lr"], of_encoder["lr"]) == pytest.approx((0.01, 0.01 * lr_factor))
    if lr_factor != 1:
        classifier.schedule = partial(CosineAnnealingLR, eta_min=0.001)
        with pytest.raises(UserError, match="schedule.eta_min: 0.001 is one rate for all weights, but .*; write 0"):
            classifier.configure_optimizers()


def train_steps(schedule, epochs: int, setting: str = "lr") -> list[float]:
    """Trains with four steps per epoch and returns a setting of the optimizer in each step."""
    torch.manual_seed(0)
    frames, labels = torch.randn(32, 4, 1, 2, 2), torch.randint(0, 3, (32,))
    classifier = Classifier(Flat(), partial(torch.optim.SGD, lr=0.1, momentum=0.9), schedule, SPEC)
    values, callback = [], Callback()
    callback.on_train_batch_start = lambda trainer, *_: values.append(trainer.optimizers[0].param_groups[0][setting])
    trainer(max_epochs=epochs, callbacks=[callback], log_every_n_steps=1).fit(classifier, batches(frames, labels, 8))
    return values


def test_a_schedule_that_takes_the_number_of_steps_advances_every_step():
    cosine = train_steps(partial(CosineAnnealingLR, eta_min=0.0), epochs=2)
    assert cosine == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 8)) for step in range(8)])
    onecycle = train_steps(partial(OneCycleLR, max_lr=0.4, pct_start=0.5, cycle_momentum=False), epochs=2)
    assert [onecycle[0], max(onecycle), onecycle[-1]] == pytest.approx([0.4 / 25, 0.4, 0.4 / 25 / 1e4])
    scheduled = partial(OneCycleLR, max_lr=0.4, base_momentum=0.85, max_momentum=0.95)
    assert train_steps(scheduled, 1, "momentum")[0] == 0.95


class CountingSGD(torch.optim.SGD):
    """Counts in its groups, as Prodigy does."""

    def __init__(self, weights, rate):
        super().__init__([{**group, "count": 0} for group in weights], rate)
        self.defaults["count"] = 0


def test_a_resumed_optimizer_has_the_settings_of_the_config_and_its_own_count():
    classifier = Classifier(Flat(), partial(CountingSGD, rate=0.1), CONSTANT, SPEC)
    resuming = Callback()
    resuming.on_train_start = lambda trainer, _: trainer.optimizers[0].param_groups[0].update(lr=9.0, count=3)
    fitted = trainer(callbacks=[resuming], max_epochs=1)
    fitted.fit(classifier, batches(torch.randn(8, 4, 1, 2, 2), torch.randint(0, 3, (8,)), 8))
    (group,) = fitted.optimizers[0].param_groups
    assert (group["lr"], group["count"]) == (0.1, 3)


def test_any_other_schedule_advances_every_epoch():
    exponential = train_steps(partial(ExponentialLR, gamma=0.5), epochs=3)
    assert exponential == pytest.approx([0.1] * 4 + [0.05] * 4 + [0.025] * 4)
    assert train_steps(CONSTANT, epochs=2) == [0.1] * 8
    assert train_steps(partial(ConstantLR, factor=0.5, total_iters=2), epochs=3) == [0.05] * 8 + [0.1] * 4


def test_the_learning_rate_of_an_epoch_is_that_of_its_last_step():
    frames, labels = torch.randn(32, 4, 1, 2, 2), torch.randint(0, 3, (32,))
    schedule, fit = partial(CosineAnnealingLR, eta_min=0.0), trainer(max_epochs=2)
    fit.fit(Classifier(Flat(), SGD, schedule, SPEC), batches(frames, labels, 8))
    assert fit.callback_metrics["train/learning_rate"].item() == pytest.approx(0.0038, abs=5e-5)


def test_labels_are_smoothed_and_classes_are_weighted_in_training_only():
    frames, labels = torch.randn(10, 4, 1, 2, 2), torch.randint(0, 3, (10,))
    classifier = Classifier(Flat(), SGD, CONSTANT, SPEC, label_smoothing=0.3)
    logits = classifier(frames)
    loss = -logits.log_softmax(1).gather(1, labels[:, None]).mean()
    uniform_loss = -logits.log_softmax(1).mean()
    torch.testing.assert_close(classifier.training_step(Batch(frames, labels), 0), 0.7 * loss + 0.3 * uniform_loss)
    classifier.class_weights = torch.tensor([0.5, 1.0, 4.0])  # of the smoothed loss, which is not divided by them
    losses = cross_entropy(logits, labels, reduction="none", label_smoothing=0.3)
    by_hand = sum(loss * [0.5, 1.0, 4.0][label] for loss, label in zip(losses, labels.tolist(), strict=True)) / 10
    torch.testing.assert_close(classifier.training_step(Batch(frames, labels), 0), by_hand)
    classifier.validation_step(Batch(frames, labels), 0)
    torch.testing.assert_close(classifier.scores["val"][0].losses.mean(), loss.detach())


def test_windows_are_averaged_in_float32_whatever_the_logits_are_in():
    logits = (0.05 * torch.randn(3 * 200, 1, 3, generator=torch.Generator().manual_seed(0))).bfloat16()
    expected = logits.double().softmax(2).unflatten(0, (200, 3)).mean(1)
    with torch.autocast("cpu", torch.bfloat16):
        averaged = average_windows(logits, 200)
    torch.testing.assert_close(averaged.exp().double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(averaged.argmax(2), expected.argmax(2))

"""Hooks of callbacks and modules: the empty ones of each step are skipped, the written ones are called as before."""

from functools import partial

import lightning.pytorch as pl
import torch
from torch.nn.utils import get_total_norm

from quadrant_lstm.callbacks.finite import Finite
from quadrant_lstm.callbacks.idle import EACH_STEP, skip_empty_hooks
from quadrant_lstm.model.classifier import Classifier
from tests.model.test_classifier import CONSTANT, Flat, batches, trainer


class Hooked(Classifier):
    ended = 0

    def on_train_batch_end(self, *_):
        self.ended += 1


class Norms(pl.Callback):
    def __init__(self):
        self.norms = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.norms.append(get_total_norm([weights.grad for weights in module.parameters()]).item())


class Points(pl.loggers.logger.DummyLogger):
    def __init__(self):
        super().__init__()
        self.norms = []

    def log_metrics(self, metrics, step):
        self.norms += [value for name, value in metrics.items() if name == "train/gradient_norm"]


def test_what_is_written_is_called_and_what_is_empty_is_not():
    frames, labels = torch.randn(80, 4, 1, 2, 2), torch.randint(0, 3, (80,))
    module, norms, logger = Hooked(Flat(), partial(torch.optim.SGD, lr=0.1), CONSTANT, (1, 2, 2), 3), Norms(), Points()
    callbacks = [Finite(), norms]
    for hooked in (module, *callbacks):
        skip_empty_hooks(hooked)
    called = [[name for name in EACH_STEP if getattr(hooked, name)] for hooked in (module, *callbacks)]
    assert called == [["on_train_batch_end"], ["on_before_optimizer_step"], ["on_before_optimizer_step"]]
    training = trainer(logger, max_epochs=1, log_every_n_steps=1, callbacks=callbacks)
    training.fit(module, batches(frames, labels, 8))
    assert module.ended == 10  # batches of 8 of 80 images
    assert logger.norms == norms.norms  # Finite's, of all gradients together
    assert len(set(norms.norms)) == 10

from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from torch.nn.utils import get_total_norm

from quadrant_lstm.callbacks.training import Finite
from quadrant_lstm.model.classifier import Classifier
from tests.networks import CONSTANT, SPEC, Flat, batches, fp16, trainer


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


def test_the_logged_gradient_norm_is_the_total_norm():
    frames, labels = torch.randn(80, 4, 1, 2, 2), torch.randint(0, 3, (80,))
    classifier = Classifier(Flat(), partial(torch.optim.SGD, lr=0.1), CONSTANT, SPEC)
    norms, logger = Norms(), Points()
    training = trainer(logger, max_epochs=1, log_every_n_steps=1, callbacks=[Finite(), norms])
    training.fit(classifier, batches(frames, labels, 8))
    assert logger.norms == norms.norms
    assert len(set(norms.norms)) == 10


@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, lr=0.0), partial(torch.optim.Adam, lr=0.0, fused=True)])
def test_the_logged_norm_is_not_that_of_gradients_scaled_for_fp16(optimizer):
    torch.manual_seed(0)
    frames, labels = torch.randn(8, 4, 1, 2, 2), torch.randint(0, 3, (8,))
    classifier, logged = Classifier(Flat(), optimizer, CONSTANT, SPEC), []
    for plugins in (None, fp16()):
        logger = Points()
        training = trainer(logger, max_epochs=1, log_every_n_steps=1, callbacks=[Finite()], plugins=plugins)
        training.fit(classifier, batches(frames, labels, 8))
        logged += logger.norms
    assert logged[1] == pytest.approx(logged[0], rel=0.02)

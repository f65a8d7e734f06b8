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
    norms = ()

    def log_metrics(self, metrics, step):
        self.norms = (*self.norms, metrics["train/gradient_norm"])


@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, lr=0.0), partial(torch.optim.Adam, lr=0.0, fused=True)])
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

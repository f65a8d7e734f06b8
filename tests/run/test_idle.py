"""Hooks of callbacks and modules: the empty ones of each step are skipped, the written ones are called as before."""

from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.nn.utils import get_total_norm
from torch.optim.lr_scheduler import ConstantLR

from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.run.finite import Finite
from quadrant_lstm.run.idle import EACH_STEP, skip_empty_hooks


class Network(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.LazyLinear(3))


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


@pytest.fixture
def data(idx_folder):
    return SequenceDataModule("idx", str(idx_folder), [[1, 2, 3, 4]], 40, 0, 16, 1, Augmentation())


def test_what_is_written_is_called_and_what_is_empty_is_not(data):
    optimizer, schedule = partial(torch.optim.SGD, lr=0.1), partial(ConstantLR, factor=1.0, total_iters=0)
    module, norms, logger = Hooked(Network(), optimizer, schedule, data.frame_shape, 3), Norms(), Points()
    callbacks = [Finite(), norms]
    for hooked in (module, *callbacks):
        skip_empty_hooks(hooked)
    called = [[name for name in EACH_STEP if getattr(hooked, name)] for hooked in (module, *callbacks)]
    assert called == [["on_train_batch_end"], ["on_before_optimizer_step"], ["on_before_optimizer_step"]]
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=logger, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1, callbacks=callbacks,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert module.ended == 10  # batches of 16 of 160 images
    assert logger.norms == norms.norms  # Finite's, of all gradients together
    assert len(set(norms.norms)) == 10

"""Tests on a CUDA device that results equal those of a CPU and that the host never waits during a step."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from torch.nn.functional import cross_entropy

from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.processes.launch import prepare_for_training
from quadrant_lstm.run.build import build_classifier, build_data, build_trainer
from tests.configs import composed_config
from tests.networks import question_network

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")]


@pytest.mark.parametrize("shared_tiles", [True, False])
def test_losses_and_gradients_equal_those_of_a_cpu(shared_tiles, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    network = question_network(shared_tiles=shared_tiles, dropout=0.0)
    frames, labels = sequences(torch.rand(8, 1, 28, 28)), torch.arange(8)
    losses, gradients = [], []
    for device in ("cpu", DEVICE):
        copied = copy.deepcopy(network).to(device)
        loss = cross_entropy(copied(frames.to(device)), labels.to(device))
        loss.backward()
        losses.append(loss.detach().cpu())
        gradients.append({name: weights.grad.cpu() for name, weights in copied.named_parameters()})
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


class NeverWaits(pl.Callback):
    """Makes torch raise an error if the host waits for the device, from the fourth step to the last but one."""

    steps = 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        assert batch[0].device.type == DEVICE
        if 3 <= batch_idx < trainer.num_training_batches - 1:
            torch.cuda.set_sync_debug_mode("error")
            self.steps += 1

    def on_train_batch_end(self, trainer, *_):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("experiment", ["question", "fast", "motion"])
def test_the_host_never_waits_during_a_step(experiment, tmp_path):
    overrides = ["trainer.accelerator=gpu", "trainer.precision=bf16-mixed", "trainer.limit_train_batches=9",
                 "trainer.max_epochs=1", "~trainer.callbacks.dashboard", "trainer.logger=false"]  # fmt: skip
    if experiment != "motion":
        overrides += ["data.augmentation.elastic=1.0", "data.augmentation.erase=0.1"]
    cfg = composed_config(f"experiment={experiment}", *overrides)
    callback, data, trainer = NeverWaits(), build_data(cfg), build_trainer(cfg, tmp_path)
    trainer.callbacks.append(callback)
    prepare_for_training()
    trainer.fit(build_classifier(cfg, data.spec), datamodule=data)
    assert callback.steps == 5

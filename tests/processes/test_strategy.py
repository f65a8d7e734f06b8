import signal

from lightning.pytorch import Callback
from lightning.pytorch.demos.boring_classes import BoringModel

from quadrant_lstm.processes.launch import DDP
from quadrant_lstm.signals import interrupt
from tests.networks import trainer
from tests.scripts import call_unchecked


class Handlers(Callback):
    """Records the handler of SIGTERM in each batch."""

    def __init__(self):
        self.found = []

    def on_train_batch_start(self, *_):
        self.found.append(signal.getsignal(signal.SIGTERM))

    on_test_batch_start = on_train_batch_start


def train_and_test() -> None:
    handlers, model = Handlers(), BoringModel()
    limits = {"max_epochs": 1, "limit_train_batches": 2, "limit_test_batches": 1}
    two_stages = trainer(strategy=DDP(timeout=20.0), devices=1, callbacks=[handlers], **limits)
    two_stages.fit(model)
    two_stages.test(model)
    assert handlers.found == [interrupt] * 3


def test_sigterm_ends_a_process_while_it_trains_and_tests():
    call_unchecked(train_and_test)  # Lightning leaves MASTER_PORT and others in the environment

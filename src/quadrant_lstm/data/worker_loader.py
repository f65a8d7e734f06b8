"""Defines a DataLoader whose workers neither draw from torch's generator nor warn, and end at SIGTERM unnoticed."""

import os
import signal
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


class WorkerLoader(DataLoader):
    """Draws the seed for its workers from a generator of its own: the default one draws weights and dropout."""

    def __init__(self, dataset: Dataset, **options: Any):
        super().__init__(dataset, generator=torch.Generator(), worker_init_fn=end_quietly_at_sigterm, **options)

    def check_worker_number_rationality(self) -> None:
        """Does not warn of more workers than cores: the user has chosen their number."""


def end_quietly_at_sigterm(_: int) -> None:
    """Lets this worker end at SIGTERM as if it had finished.

    If the signal was sent to all processes, the main one ends by its own. But when a worker is killed, torch raises an
    error in the main process wherever that happens to be.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

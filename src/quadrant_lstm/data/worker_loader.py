"""Defines a DataLoader whose workers neither draw from torch's generator nor warn, and end at a signal unnoticed."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from quadrant_lstm.errors import UserError
from quadrant_lstm.signals import signals_deferred


class WorkerLoader(DataLoader):
    """Draws the seed for its workers from a generator of its own: the default one draws weights and dropout.

    Ctrl-C, which a terminal sends to all processes, ends this process, which then ends the workers. Signals wait
    until all workers have started.
    """

    def __init__(self, dataset: Dataset, num_workers: int, **options: Any):
        options |= {"multiprocessing_context": "fork"} if num_workers else {}  # others import torch again
        generator = torch.Generator()
        super().__init__(dataset, num_workers=num_workers, generator=generator, worker_init_fn=end_unnoticed, **options)

    def __iter__(self) -> Any:
        with signals_deferred():
            return super().__iter__()

    def check_worker_number_rationality(self) -> None:
        """Does not warn of more workers than cores: the user has chosen their number."""


def end_unnoticed(_: int) -> None:
    """Lets this worker ignore Ctrl-C, and end at SIGTERM as if it had finished.

    A signal to all processes ends the main one, too. But when a worker is killed, torch raises an error in the main
    process, wherever that happens to be.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


@contextlib.contextmanager
def killed_workers_explained(message: str) -> Iterator[None]:
    """Raises UserError with this message if a worker was killed. Of torch's error, which it raises wherever the main
    process happens to be, only the text tells this (torch 2.13).
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(message) from error

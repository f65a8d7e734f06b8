"""Defines a DataLoader whose workers neither draw from torch's generator nor warn."""

from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


class WorkerLoader(DataLoader):
    """Draws the seed for its workers from a generator of its own: the default one draws weights and dropout."""

    def __init__(self, dataset: Dataset, **options: Any):
        super().__init__(dataset, generator=torch.Generator(), **options)

    def check_worker_number_rationality(self) -> None:
        """Does not warn of more workers than cores: the user has chosen their number."""

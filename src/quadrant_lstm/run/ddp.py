"""Seconds -> Lightning's strategy for several processes, with that timeout."""

from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy

from quadrant_lstm.config.values import Positive


class DDP(DDPStrategy):
    """`options` are those of DDPStrategy, and of torch's DistributedDataParallel."""

    def __init__(self, timeout: Positive, **options: Any):
        super().__init__(timeout=timedelta(seconds=timeout), **options)

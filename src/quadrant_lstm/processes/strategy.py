"""Lightning's strategy for several processes, with a timeout in seconds, and without Lightning's handler of SIGTERM.

Processes that train.py itself starts meet through a file, which is closed to other machines.

Lightning 2.6's handler broadcasts a tensor. If SIGTERM finds the processes at different operations, they wait for each
other: of ten runs under torchrun, five ended only when torchrun killed them after 30 seconds.
"""

import os
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed import (
    DistNetworkError,
    FileStore,
    get_backend,
    get_rank,
    get_world_size,
    init_process_group,
    irecv,
    is_initialized,
)

from quadrant_lstm.processes import torchrun
from quadrant_lstm.processes.launch import STORE
from quadrant_lstm.signals import exit_at_signals


class DDP(DDPStrategy):
    """`options` are arguments of DDPStrategy and of torch's DistributedDataParallel."""

    def __init__(self, timeout: float, **options: Any):
        self.timeout = timedelta(seconds=timeout)
        super().__init__(timeout=self.timeout, **options)

    def setup_distributed(self) -> None:
        """Called by fit and test. Lightning keeps a process group that exists; one that it makes itself listens on
        a port that other users can reach.
        """
        meeting = torchrun.meeting
        if (meeting or STORE in os.environ) and not is_initialized():
            self.set_world_ranks()
            if meeting:
                meeting.wait_for_all("built", self.timeout)
            store: Any = meeting.new_store() if meeting else FileStore(os.environ[STORE], self.world_size)
            store.set_timeout(self.timeout)
            device = self.root_device if self.root_device.type == "cuda" else None
            try:
                init_process_group(
                    "nccl" if device else "gloo", store=store, rank=self.global_rank, world_size=self.world_size,
                    timeout=self.timeout, device_id=device,
                )  # fmt: skip
            except RuntimeError as error:  # gloo and FileStore raise no errors of their own
                raise DistNetworkError(str(error)) from error
        super().setup_distributed()

    def barrier(self, *arguments: Any, **options: Any) -> None:
        """Lightning calls this first of all after it has set its handler."""
        exit_at_signals()
        super().barrier(*arguments, **options)


def is_connected() -> bool:
    """Tells whether this process can still exchange tensors with all others, or is alone.

    gloo closes a connection when the other process ends, and all of them after a timeout; its errors are RuntimeErrors
    like any other. NCCL's are torch's DistErrors.
    """
    if not is_initialized() or get_backend() != "gloo":
        return True
    try:
        for rank in set(range(get_world_size())) - {get_rank()}:
            irecv(torch.empty(1), src=rank)  # does not wait; raises at once if the connection is closed
    except RuntimeError:
        return False
    return True

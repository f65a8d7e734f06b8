"""What Lightning calls at each step for nothing -> not called: empty hooks, and what its profiler makes around each.
Between two batches the processor's caches are full of the network's numbers, and such calls take twice their time.
"""

import contextlib
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.profilers import PassThroughProfiler

NOTHING = contextlib.nullcontext()
EACH_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class Unprofiled(PassThroughProfiler):
    """Measures nothing; one that does: +trainer.profiler=simple."""

    def profile(self, action_name: str) -> Any:
        return NOTHING


def skip_empty_hooks(hooked: pl.Callback | pl.LightningModule) -> None:
    """Those that its class has as Lightning left them: what cannot be called is passed over."""
    empty = pl.Callback if isinstance(hooked, pl.Callback) else pl.LightningModule
    for name in EACH_STEP:
        if getattr(type(hooked), name) is getattr(empty, name):
            setattr(hooked, name, None)

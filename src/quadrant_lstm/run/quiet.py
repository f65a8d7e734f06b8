"""Silences messages of Lightning and TensorBoard that a user cannot act on."""

import errno
import logging
import threading
import warnings

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import nn

from quadrant_lstm.errors import DISK_ERRNOS


def quiet_lightning() -> None:
    """Silences Lightning's info messages, this project's in all processes but the first, and the warnings below."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if getattr(rank_zero_only, "rank", 0):
        logging.getLogger("quadrant_lstm").setLevel(logging.WARNING)
    for message in (
        "exists and is not empty",
        "smaller than the logging interval",
        "Total length of `list` across ranks is zero",  # no validation images
        "LeafSpec",
        "`srun` command",  # a run on a cluster may be started without SLURM on purpose
        "Grad strides do not match bucket view strides",  # of convolutions that are channels last
        "Be aware that when using `ckpt_path`",  # a callback was removed from a run that resumes
        "You requested to overfit",  # the loader itself stops shuffling
        "sync_dist=True",  # metrics synchronize themselves; other logged values are equal in all processes
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
    threading.excepthook = ignore_disk_errors


def allow_frozen_modules(network: nn.Module) -> None:
    """Silences Lightning's warning about modules in eval mode, unless they have weights that are trained."""
    frozen = [module for module in network.modules() if not module.training]
    if not any(weights.requires_grad for module in frozen for weights in module.parameters()):
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")


def ignore_disk_errors(failed: threading.ExceptHookArgs) -> None:
    """Prints the traceback of a thread unless the main thread reports its error: of the disk, or a missing folder."""
    if not (isinstance(failed.exc_value, OSError) and failed.exc_value.errno in (*DISK_ERRNOS, errno.ENOENT)):
        threading.__excepthook__(failed)

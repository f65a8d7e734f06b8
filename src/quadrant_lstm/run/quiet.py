"""What Lightning and TensorBoard say by themselves -> only what a user can act on."""

import logging
import threading
import warnings

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from quadrant_lstm.errors import DISK


def quiet_lightning() -> None:
    """Our own lines say the rest; of several processes only the first speaks, unless something is wrong."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if getattr(rank_zero_only, "rank", 0):
        logging.getLogger("quadrant_lstm").setLevel(logging.WARNING)
    for message in (
        "exists and is not empty",
        "smaller than the logging interval",
        "LeafSpec",
        "`srun` command",  # hydra/launcher=submitit_slurm uses it; a run beside it is meant
        "sync_dist=True",  # the metrics sync themselves, and the rest is equal in all processes
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
    threading.excepthook = quiet_writer


def quiet_writer(failed: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer is a thread; what ended it is raised at the next point, in the main thread too."""
    if not (isinstance(failed.exc_value, OSError) and failed.exc_value.errno in DISK):
        threading.__excepthook__(failed)

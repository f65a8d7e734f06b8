"""What Lightning says by itself -> only what a user can act on."""

import logging
import warnings

from lightning.pytorch.utilities.rank_zero import rank_zero_only


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
        "sync_dist=True",  # the metrics sync themselves, and the rest is equal in all processes
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")

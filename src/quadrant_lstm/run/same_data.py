"""Compares the data of a run as they are now with those that its network was trained on."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_json
from quadrant_lstm.run_folder import PROVENANCE, as_typed

log = logging.getLogger(__name__)


def keep_num_frames(cfg: DictConfig, trained: SequenceSpec) -> DictConfig:
    """Returns the config with data.num_frames=null, the length of the longest clip, replaced by what it was when the
    network was trained.
    """
    kept = cfg.copy()
    if kept.data.get("num_frames", 0) is None:
        kept.data.num_frames = trained.num_steps
    return kept


def check_same_data(data: SequenceDataModule, trained: SequenceSpec, folder: Path) -> None:
    """Raises UserError for other classes or frames than the network's, and logs a line for other files."""
    now, remedy = data.spec, "restore the data, or start a new run."
    if now.class_names != trained.class_names:
        raise UserError(
            f"data: the classes are {', '.join(now.class_names)}, but {as_typed(folder)} was trained on "
            f"{', '.join(trained.class_names)}; {remedy}"
        )
    if now.frame_shape != trained.frame_shape:
        one, other = (" x ".join(map(str, spec.frame_shape)) for spec in (now, trained))
        raise UserError(f"data: frames are {one}, but {as_typed(folder)} was trained on {other}; {remedy}")
    recorded = read_json(folder / PROVENANCE).get("data", {}).get("sha256")
    if recorded and recorded != data.sha256():
        log.info(
            f"data: the files have changed since {as_typed(folder)} was started, so that samples may have moved from "
            "training to test"
        )

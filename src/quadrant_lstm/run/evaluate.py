"""Computes the test metrics of a run's best checkpoint."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quadrant_lstm.callbacks.training import Progress
from quadrant_lstm.config.check import check_fit
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.run.build import build_data, instantiate_node
from quadrant_lstm.run.load import load_classifier
from quadrant_lstm.run.precision import resolve_precision
from quadrant_lstm.run.quiet import quiet_lightning
from quadrant_lstm.run.same_data import check_same_data

log = logging.getLogger(__name__)


def evaluate(folder: Path, accelerator: str, trust: Sequence[str] = ()) -> dict[str, Any]:
    """Logs the test metrics and returns them by name."""
    classifier, _ = run_test(folder, accelerator, trust)
    results = classifier.test_results()
    log.info(f"run                   {folder}")
    for name, value in results.items():
        log.info(f"{name:20}  {value}")
    return results


def run_test(folder: Path, accelerator: str, trust: Sequence[str] = ()) -> tuple[Classifier, SequenceDataModule]:
    """Tests the best checkpoint. The returned Classifier holds the logits and labels of the test images."""
    quiet_lightning()
    classifier, cfg = load_classifier(folder, trust)
    check_fit(cfg)
    trainer = instantiate_node(
        "accelerator", {"_target_": "lightning.pytorch.Trainer"}, accelerator=accelerator, devices=1,
        precision=resolve_precision(cfg.trainer.precision, accelerator), logger=False, callbacks=[Progress()],
        limit_test_batches=cfg.trainer.get("limit_test_batches"), enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    data = build_data(cfg)
    check_same_data(data, classifier.spec, folder)
    trainer.test(classifier, datamodule=data, verbose=False)
    return classifier, data

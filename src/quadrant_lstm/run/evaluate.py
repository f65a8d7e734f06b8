"""A run folder -> the test metrics of its best epoch."""

import logging
from pathlib import Path

import lightning.pytorch as pl

from quadrant_lstm.config.check import check_sizes
from quadrant_lstm.run.build import build_data
from quadrant_lstm.run.load import load_classifier
from quadrant_lstm.run.progress import Progress
from quadrant_lstm.run.quiet import quiet_lightning

log = logging.getLogger(__name__)


def evaluate(folder: Path, accelerator: str) -> dict[str, float]:
    """`test/accuracy`, `test/loss` and `test/images`; prints them."""
    quiet_lightning()
    classifier, cfg = load_classifier(folder)
    check_sizes(cfg)
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=cfg.trainer.precision,
        logger=False,
        callbacks=[Progress()],
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    (metrics,) = trainer.test(classifier, datamodule=build_data(cfg), verbose=False)
    right = classifier.test_confusion.diagonal().sum().item()
    log.info(f"run            {folder}")
    log.info(f"test/accuracy  {metrics['test/accuracy']}  ({right:,} of {int(metrics['test/images']):,} images)")
    log.info(f"test/loss      {metrics['test/loss']}")
    return dict(metrics)

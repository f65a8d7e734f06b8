"""Classifies image files with a run's best checkpoint, logs the two most probable classes, and can write a CSV file."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from quadrant_lstm.data.frames import image_shape_of
from quadrant_lstm.data.image_files import read_image
from quadrant_lstm.data.orderings import scaled, sequences
from quadrant_lstm.errors import UserError
from quadrant_lstm.run.load import load_classifier

log = logging.getLogger(__name__)
BATCH_SIZE = 256


def predict(
    folder: Path, files: list[Path], invert: bool | None, output: str | None, trust: Sequence[str] = ()
) -> None:
    if output and not Path(output).absolute().parent.is_dir():
        raise UserError(f"output: the folder of {output} does not exist; create it, or write another path.")
    if output and Path(output).resolve() in {file.resolve() for file in files}:
        raise UserError(f"output: {output} is one of the images; write another path.")
    classifier, cfg = load_classifier(folder, trust)
    image_shape = image_shape_of(classifier.hparams["frame_shape"], len(cfg.data.orderings))
    network = classifier.network.eval()
    rows: list[tuple[Path, list[float]]] = []
    log.info("prediction  confidence  second  confidence  file")
    for start in range(0, len(files), BATCH_SIZE):
        batch = files[start : start + BATCH_SIZE]
        pixels = torch.from_numpy(np.stack([read_image(file, image_shape, invert) for file in batch]))
        with torch.inference_mode():
            probabilities = network(scaled(sequences(pixels, cfg.data.orderings))).softmax(dim=1)
        for file, row in zip(batch, probabilities.tolist(), strict=True):
            rows.append((file, row))
            first, second = sorted(range(len(row)), key=row.__getitem__, reverse=True)[:2]
            log.info(f"{first:<10}  {100 * row[first]:8.1f} %  {second:<6}  {100 * row[second]:8.1f} %  {file}")
    if output:
        try:
            with open(output, "w", newline="") as table:
                writer = csv.writer(table)
                writer.writerow(["file", "prediction", *range(len(rows[0][1]))])
                writer.writerows([file, row.index(max(row)), *row] for file, row in rows)
        except OSError as error:
            raise UserError(f"output: {output} cannot be written ({error.strerror}); write another path.") from error
        log.info(f"wrote the probabilities to {output}")

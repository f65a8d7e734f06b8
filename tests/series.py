"""Writes series of two classes, in all formats."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from quadrant_lstm.data.series import Series


def noise_series(num_values: int, num_features: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_values, num_features)).astype(np.float32)


def write_table(path: Path, values: np.ndarray, names: Iterable[str] = ()) -> None:
    lines = [",".join(names)] if names else []
    path.write_text("\n".join([*lines, *(",".join(map(repr, row)) for row in values.tolist()), ""]))


def write_series_folder(root: Path, per_class: int = 4, halves=("train", "test"), num_values=range(2, 6)) -> Path:
    """Writes series as .npy files. Those of class "up" have larger values than those of class "down"."""
    for number, half in enumerate(halves):
        for name, offset in (("down", 0), ("up", 2)):
            (root / half / name).mkdir(parents=True)
            for place in range(per_class):
                values = noise_series(num_values[place % len(num_values)], seed=100 * number + 10 * offset + place)
                np.save(root / half / name / f"{place}.npy", values + offset)
    return root


def series_in(root: Path | None, **changes) -> Series:
    arguments = {
        "dataset": None, "root": None if root is None else str(root), "labels": None, "group": None, "num_frames": 3,
        "sampling": "consecutive", "window": None, "stride": None, "test_windows": 1, "missing": None,
        "test_share": 0.25, "validation_share": 0.25, "validation_seed": 0, "batch_size": 3, "seed": 1,
    }  # fmt: skip
    return Series(**(arguments | changes))

"""Defines what clips and series have in common: which steps of a file are read, and how the files of a folder become
the data of a run.
"""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Int64, Num
from torch import Tensor

from quadrant_lstm.data import splits
from quadrant_lstm.data.datamodule import Batch, SequenceDataModule, epoch_seed
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.data.splits import Division, Sample
from quadrant_lstm.errors import as_text
from quadrant_lstm.kinds import SamplingKind
from quadrant_lstm.text import counted, plural

Numbers = Int[np.ndarray, "_"]
Window = tuple[int, Numbers]  # the number of a sample, and which of its available steps are read


def windows_of(
    sampling: SamplingKind, available: int, most: int, num_windows: int, seed: int | None = None
) -> list[Numbers]:
    """Returns which of the available steps make up each of several windows of `most` steps, or of all if there are
    fewer. The windows are evenly spaced, and a single one is the middle; but for the training, a seed draws one window.

    Steps that are spread over the sequence are one of each of its equal parts, at the same place in all parts, so that
    what moves evenly does so from step to step. A single window has the middles of the parts.
    """
    length = min(available, most)
    spare = available - length
    if sampling == "uniform":
        offsets = [(window + 0.5) / num_windows for window in range(num_windows)]
        if seed is not None:
            offsets = [np.random.default_rng(seed).random()]
        places = [(np.arange(length) + offset) * available / length for offset in offsets]
        return [place.astype(int).clip(max=available - 1) for place in places]
    starts = [round(window * spare / max(1, num_windows - 1)) for window in range(num_windows)]
    if seed is not None or num_windows == 1:
        starts = [spare // 2 if seed is None else seed % (spare + 1)]
    return [np.arange(start, start + length) for start in starts]


class WindowReader:
    """Reads some of the available steps of samples: as many as a network reads, or all. `available` has the numbers of
    the steps of each file, also of those of other samples.
    """

    def __init__(
        self, samples: Sequence[Sample], available: Mapping[Path, Numbers], sampling: SamplingKind, spec: SequenceSpec,
        seed: int, num_windows: int,
    ):  # fmt: skip
        self.samples, self.sampling, self.spec, self.seed = samples, sampling, spec, seed
        self.num_steps, self.num_windows = spec.num_steps, num_windows
        self.labels = torch.tensor([spec.class_names.index(sample.label) for sample in samples])
        self.numbers = [available[sample.path] for sample in samples]
        self.pads = min(map(len, available.values())) < spec.num_steps

    def __len__(self) -> int:
        return len(self.samples)

    def windows(self, samples: Sequence[int], epoch: int | None, num_windows: int | None = None) -> list[Window]:
        """Returns the windows of samples with these numbers: one of each for an epoch of the training, by the seed, or
        so many of each; by default as many as the test reads.
        """
        windows: list[Window] = []
        for number in samples:
            seed = None if epoch is None else epoch_seed(self.seed, epoch, number)
            lengths = len(self.numbers[number]), self.num_steps
            chosen = windows_of(self.sampling, *lengths, num_windows or self.num_windows, seed)
            windows += [(number, places) for places in chosen]
        return windows

    @abstractmethod
    def frames(self, windows: Sequence[Window]) -> Num[Tensor, "windows steps ..."]:
        """Returns the steps of the windows, padded with zeros at their ends."""

    def batch(self, samples: Int64[Tensor, " batch"], epoch: int | None, num_windows: int | None = None) -> Batch:
        windows = self.windows(samples.tolist(), epoch, num_windows)
        return self.batch_of(samples, windows, self.frames(windows))

    def batch_of(
        self, samples: Int64[Tensor, " batch"], windows: Sequence[Window], frames: Num[Tensor, "..."]
    ) -> Batch:
        lengths = torch.tensor([len(places) for _, places in windows])
        return Batch(frames, self.labels[samples], lengths if self.pads else None)


class FileSequences(SequenceDataModule):
    """Counts the samples, lists them, and warns of few ones, of copies and of an uneven `division`. `origin` and
    `amount` say where they come from, and how much is in them.
    """

    warnings: list[str]

    def __init__(
        self, spec: SequenceSpec, train: WindowReader, test: WindowReader, division: Division, batch_size: int,
        seed: int, folder: Path, origin: str, checksums: Mapping[Path, str], amount: str,
    ):  # fmt: skip
        super().__init__(spec, train, test, torch.tensor(division.held_out, dtype=torch.int64), batch_size, seed)
        self.pads, self.num_windows = train.pads, test.num_windows
        self.origin = "; ".join(filter(None, (origin, division.how)))
        halves = {
            "training": [train.samples[place] for place in self.train_indices.tolist()],
            "validation": [train.samples[place] for place in division.held_out],
            "test": test.samples,
        }
        divided = {sample.split for samples in halves.values() for sample in samples}
        shares = {"test": "data.test_share", "val": "data.validation_share"}
        self.unused = [key for split, key in shares.items() if split in divided]
        counts, self.warnings = splits.counts_in_words(halves, spec.class_names)
        if self.num_windows > 1 and max(map(len, test.numbers)) <= spec.num_steps:
            rule = f"no test {self.kind} has more steps than data.num_frames={spec.num_steps}"
            self.warnings.append(f"data.test_windows: {rule}, so that all {test.num_windows} windows are the same")
        total = counted(sum(map(len, halves.values())), self.kind)
        self.summary = f"{total} of {spec.num_classes} classes: {counts}; {amount}"
        self.table = [
            {"path": as_text(os.path.relpath(sample.path, folder)), "split": half, "class": sample.label}
            | {"group": as_text(sample.group), "sha256": checksums[sample.path]}
            for half, samples in halves.items()
            for sample in samples
        ]
        trained = {checksums[sample.path]: sample.path for sample in halves["training"]}
        tested = [sample.path for half in ("validation", "test") for sample in halves[half]]
        if copies := [path for path in tested if checksums[path] in trained]:
            example = f"such as {copies[0]}, a copy of {trained[checksums[copies[0]]]}"
            number = counted(len(copies), self.kind)
            rule = f"training {plural(self.kind)} are repeated by {number} for validation or test, {example}"
            self.warnings.append(f"data: {rule}; remove such copies")
        self.warnings += division.warnings

    def class_counts(self) -> Int64[Tensor, " classes"]:
        return self.train.labels[self.train_indices].bincount(minlength=self.spec.num_classes)

    def test_samples(self, indices: Int64[Tensor, " samples"], num_windows: int = 1) -> Batch:
        return self.test.batch(indices, None, num_windows)

    def test_names(self, indices: Int64[Tensor, " samples"]) -> list[str]:
        return [as_text(self.test.samples[number].path) for number in indices.tolist()]

    def sha256(self) -> str:
        return hashlib.sha256(repr(sorted(row.items() for row in self.table)).encode()).hexdigest()

"""Defines what a run needs of its data: batches of sequences with their labels, and some test sequences to look at.

    indices of an epoch -> samples -> sequences [batch, steps, channels, height, width] on the device, and labels

data/image_sequences.py cuts images into pieces; data/moving_digits.py makes clips, and data/clips.py reads them.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64, Num, UInt8
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import TensorDataset

from quadrant_lstm.data.frames import SequenceSpec
from quadrant_lstm.data.images import Images
from quadrant_lstm.data.sampler import BatchLoader, EpochSampler

MAX_BYTES = 100_000_000  # of frames, one byte per pixel, that a network reads together after the training


class Batch(NamedTuple):
    """`lengths` are the numbers of real frames of clips that are padded at their ends; None if no clip is."""

    frames: Num[Tensor, "batch steps channels height width"]
    labels: Int64[Tensor, " batch"]
    lengths: Int64[Tensor, " batch"] | None = None

    def to(self, device: torch.device) -> "Batch":
        lengths = None if self.lengths is None else self.lengths.to(device)
        return Batch(self.frames.to(device), self.labels.to(device), lengths)

    def unpadded(self) -> list[Num[Tensor, "frames channels height width"]]:
        """Returns the real frames of each clip."""
        ends = [self.frames.shape[1]] * len(self.frames) if self.lengths is None else self.lengths.tolist()
        return [clip[:end] for clip, end in zip(self.frames, ends, strict=True)]


class SequenceDataModule(LightningDataModule):
    """Keeps the samples on the device, unless a subclass has a `loader` of its own. The subclass makes a Batch of them
    there, in `on_after_batch_transfer`.

    The validation samples are those from `validation[0]` to `validation[1]` among the training samples, which
    `validation_seed` shuffles. There may be none.
    """

    train: Any  # a data set, as `test`
    test: Any
    pads = False  # whether a clip has fewer frames than there are steps
    skipped: Sequence[str] = ()  # the errors of samples that were left out
    frame_bytes = 0  # of the memory for frames that are read while the network trains

    def __init__(
        self,
        spec: SequenceSpec,
        train: Any,
        test: Any,
        validation: tuple[int, int],
        validation_seed: int,
        batch_size: int,
        seed: int,
    ):
        super().__init__()
        self.spec, self.train, self.test, self.batch_size, self.seed = spec, train, test, batch_size, seed
        start, end = validation
        shuffled = torch.randperm(len(train), generator=torch.Generator().manual_seed(validation_seed))
        self.validation_indices = shuffled[start:end].sort().values
        self.train_indices = torch.cat([shuffled[:start], shuffled[end:]]).sort().values

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of a training batch, unless it is the last."""
        return min(self.batch_size, len(self.train_indices)), self.spec.num_steps, *self.spec.frame_shape

    def num_that_fit(self, wanted: int) -> int:
        """Returns the wanted number of samples, or fewer if their frames are larger than MAX_BYTES."""
        return max(1, min(wanted, MAX_BYTES // math.prod(self.batch_shape[1:])))

    @property
    def repeats_batches(self) -> bool:
        """Whether every epoch has the same training batches, with the same labels and orderings."""
        return bool(getattr(self.trainer, "overfit_batches", 0))

    def train_dataloader(self) -> Any:
        return self.loader(self.train, self.train_indices, None if self.repeats_batches else self.seed)

    def val_dataloader(self) -> Any:
        return self.loader(self.train, self.validation_indices) if len(self.validation_indices) else []

    def test_dataloader(self) -> Any:
        return self.loader(self.test, torch.arange(len(self.test)))

    def loader(self, data: Any, indices: Int64[Tensor, " samples"], seed: int | None = None) -> Any:
        if self.trainer is None:
            return BatchLoader(data, EpochSampler(indices, self.batch_size, seed))
        device, rank, num_ranks = self.trainer.strategy.root_device, self.trainer.global_rank, self.trainer.world_size
        sampler = EpochSampler(indices.to(device), self.batch_size, seed, rank, num_ranks)
        return BatchLoader(TensorDataset(*(tensor.to(device) for tensor in data.tensors)), sampler)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # it is already there

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        raise NotImplementedError

    def test_names(self, indices: Int64[Tensor, " samples"]) -> list[str]:
        return [f"test sample {number}" for number in indices.tolist()]

    def test_samples(self, indices: Int64[Tensor, " samples"]) -> Batch:
        """Returns some test samples, on the CPU, with frames in uint8."""
        raise NotImplementedError

    def test_pictures(self, indices: Int64[Tensor, " samples"]) -> UInt8[Tensor, "samples channels height width"]:
        """Returns a picture of each of some test samples: its first, middle and last frame, side by side."""
        frames, _, lengths = self.test_samples(indices)
        last = torch.full((len(frames),), frames.shape[1] - 1) if lengths is None else lengths - 1
        numbers = torch.arange(len(frames))
        return torch.cat([frames[:, 0], frames[numbers, last // 2], frames[numbers, last]], dim=3)

    def sha256(self) -> str:
        """Returns the checksum of what is read from files."""
        raise NotImplementedError


def tensor_datasets(images: Images) -> tuple[TensorDataset, TensorDataset]:
    """Returns the training and the test images with their labels."""
    train_images, train_labels, test_images, test_labels = map(torch.from_numpy, images)
    return TensorDataset(train_images, train_labels), TensorDataset(test_images, test_labels)

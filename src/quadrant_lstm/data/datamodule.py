"""Loads a data set and gives Lightning batches of frames and labels.

The uint8 images are kept on the device, where each batch is gathered and turned into sequences. So the sequences of a
whole data set, [60000, 4, 1, 56, 14], are never stored.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import TensorDataset

from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.frames import frame_shape_of
from quadrant_lstm.data.orderings import scaled, sequences
from quadrant_lstm.data.sampler import BatchLoader, EpochSampler
from quadrant_lstm.data.scans import orderings_of
from quadrant_lstm.data.sources import load_images
from quadrant_lstm.kinds import Grid, Orderings, OrderingsOrNames


class SequenceDataModule(LightningDataModule):
    """conf/data/mnist.yaml explains the arguments. Raises UserError for images that are missing or damaged.

    If `train_orderings` is given, the images of a training or validation batch take these orderings in turn; for each
    training batch they are shuffled first. `test_orderings` does the same for test batches. `orderings` then only sets
    how many pieces a frame stacks.
    """

    def __init__(
        self,
        dataset: str,
        root: str | None,
        grid: Grid,
        orderings: OrderingsOrNames,
        validation_images: int,
        validation_seed: int,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        train_orderings: OrderingsOrNames | None = None,
        test_orderings: OrderingsOrNames | None = None,
        fold: int | None = None,
        num_folds: int = 5,
    ):
        super().__init__()
        self.augmentation = augmentation
        self.grid, self.orderings = tuple(grid), orderings_of(orderings, grid)
        self.train_orderings = orderings_of(train_orderings or (), grid)
        self.test_orderings = orderings_of(test_orderings or (), grid)
        self.batch_size, self.seed = batch_size, seed
        self.images = load_images(dataset, root)
        self.images.check_grid(grid)
        self.train = tensor_dataset(self.images.train_images, self.images.train_labels)
        self.test = tensor_dataset(self.images.test_images, self.images.test_labels)
        start, end = self.images.validation_range(validation_images, fold, num_folds)
        shuffled = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(validation_seed))
        self.validation_indices = shuffled[start:end].sort().values
        self.train_indices = torch.cat([shuffled[:start], shuffled[end:]]).sort().values

    @property
    def num_classes(self) -> int:
        return self.images.num_classes

    @property
    def num_steps(self) -> int:
        return len(self.orderings[0])

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return frame_shape_of(self.images.image_shape, len(self.orderings), self.grid)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of a training batch, unless it is the last."""
        return min(self.batch_size, len(self.train_indices)), self.num_steps, *self.frame_shape

    def train_dataloader(self) -> BatchLoader:
        overfits = getattr(self.trainer, "overfit_batches", 0)  # then every epoch has the same batches
        return self.loader(self.train, self.train_indices, None if overfits else self.seed)

    def val_dataloader(self) -> BatchLoader:
        return self.loader(self.train, self.validation_indices)

    def test_dataloader(self) -> BatchLoader:
        return self.loader(self.test, torch.arange(len(self.test)))

    def loader(self, data: TensorDataset, indices: Int64[Tensor, " images"], seed: int | None = None) -> BatchLoader:
        if self.trainer is None:
            return BatchLoader(data, EpochSampler(indices, self.batch_size, seed))
        device, rank, num_ranks = self.trainer.strategy.root_device, self.trainer.global_rank, self.trainer.world_size
        sampler = EpochSampler(indices.to(device), self.batch_size, seed, rank, num_ranks)
        return BatchLoader(TensorDataset(*(tensor.to(device) for tensor in data.tensors)), sampler)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # it is already there

    def on_after_batch_transfer(
        self, batch: tuple[Tensor, Tensor], dataloader_idx: int
    ) -> tuple[Float[Tensor, "batch steps channels stack columns"], Int64[Tensor, " batch"]]:
        images, labels = batch
        mixed = self.train_orderings
        if self.trainer and self.trainer.testing:
            mixed = self.test_orderings
        elif self.trainer and self.trainer.training:
            images = self.augmentation(images)
            mixed = [mixed[index] for index in torch.randperm(len(mixed)).tolist()] if mixed else []
        if mixed:
            return scaled(mixed_sequences(images, mixed, len(self.orderings), self.grid)), labels
        return scaled(sequences(images, self.orderings, self.grid)), labels


def mixed_sequences(
    images: Shaped[Tensor, "batch channels height width"], mixed: Orderings, num_stacked: int, grid: Grid
) -> Shaped[Tensor, "batch steps channels stack columns"]:
    """Builds the first image's sequence with the first `num_stacked` orderings, the second's with the next ones, and so
    on. After the last orderings, the first are used again.
    """
    groups = [mixed[start : start + num_stacked] for start in range(0, len(mixed), num_stacked)][: len(images)]
    parts = [sequences(images[first :: len(groups)], group, grid) for first, group in enumerate(groups)]
    frames = parts[0].new_empty(len(images), *parts[0].shape[1:])
    for first, part in enumerate(parts):
        frames[first :: len(groups)] = part
    return frames


def tensor_dataset(images: np.ndarray, labels: np.ndarray) -> TensorDataset:
    return TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))

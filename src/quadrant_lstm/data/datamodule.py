"""Loads a data set and gives Lightning batches of frames and labels.

The uint8 images are kept on the device, where each batch is gathered and turned into sequences. So the sequences of a
whole data set, [60000, 4, 1, 56, 14], are never stored.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import TensorDataset

from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.frames import frame_shape_of
from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.data.pixels import scaled
from quadrant_lstm.data.sampler import BatchLoader, EpochSampler
from quadrant_lstm.data.sources import load_images


class SequenceDataModule(LightningDataModule):
    """conf/data/mnist.yaml explains the arguments. Raises UserError for images that are missing or damaged.

    The images of a training or validation batch take `train_orderings` in turn if there are any, in training shuffled
    for each batch; those of a test batch `test_orderings`. `orderings` then only sets how many of them a frame stacks.
    """

    def __init__(
        self,
        dataset: str,
        root: str | None,
        orderings: Sequence[Sequence[int]],
        validation_images: int,
        validation_seed: int,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        train_orderings: Sequence[Sequence[int]] | None = None,
        test_orderings: Sequence[Sequence[int]] | None = None,
    ):
        super().__init__()
        self.augmentation = augmentation
        self.orderings = [tuple(ordering) for ordering in orderings]
        self.train_orderings, self.test_orderings = train_orderings, test_orderings
        self.batch_size, self.seed = batch_size, seed
        self.images = load_images(dataset, root)
        self.train = tensor_dataset(self.images.train_images, self.images.train_labels)
        self.test = tensor_dataset(self.images.test_images, self.images.test_labels)
        self.images.check_split(validation_images)
        shuffled = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(validation_seed))
        self.validation_indices = shuffled[:validation_images].sort().values
        self.train_indices = shuffled[validation_images:].sort().values

    @property
    def num_classes(self) -> int:
        return self.images.num_classes

    @property
    def largest_batch(self) -> int:
        """The number of images in a training batch, unless it is the last."""
        return min(self.batch_size, len(self.train_indices))

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return frame_shape_of(self.images.image_shape, len(self.orderings))

    def train_dataloader(self) -> BatchLoader:
        return self.loader(self.train, self.train_indices, self.seed)

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
    ) -> tuple[Float[Tensor, "batch 4 channels stack width"], Int64[Tensor, " batch"]]:
        images, labels = batch
        pool = self.train_orderings
        if self.trainer and self.trainer.testing:
            pool = self.test_orderings
        elif self.trainer and self.trainer.training:
            images = self.augmentation(images)
            pool = pool and [pool[index] for index in torch.randperm(len(pool)).tolist()]
        frames = pooled_sequences(images, pool, len(self.orderings)) if pool else sequences(images, self.orderings)
        return scaled(frames), labels


def pooled_sequences(
    images: Shaped[Tensor, "batch channels height width"], pool: Sequence[Sequence[int]], num_stacked: int
) -> Shaped[Tensor, "batch 4 channels stack width//2"]:
    """Builds the first image's sequence with the first `num_stacked` orderings of the pool, the second's with the next
    ones, and so on. After the last orderings of the pool, the first are used again.
    """
    groups = [pool[start : start + num_stacked] for start in range(0, len(pool), num_stacked)][: len(images)]
    parts = [sequences(images[first :: len(groups)], group) for first, group in enumerate(groups)]
    frames = parts[0].new_empty(len(images), *parts[0].shape[1:])
    for first, part in enumerate(parts):
        frames[first :: len(groups)] = part
    return frames


def tensor_dataset(images: np.ndarray, labels: np.ndarray) -> TensorDataset:
    return TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))

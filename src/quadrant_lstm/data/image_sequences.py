"""Cuts the images of a data set into pieces, and gives Lightning batches of frames and labels.

The uint8 images are kept on the device, where each batch is gathered and turned into sequences. So the sequences of a
whole data set, [60000, 4, 1, 56, 14], are never stored.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor
from torch.utils.data import TensorDataset

from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.datamodule import Batch, SequenceDataModule, draw_validation
from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import SequenceSpec, frames_of, numbered_names, orderings_of, scaled, split_pieces
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import AtLeastTwo, Count, Dataset, Grid, Natural, Orderings, OrderingsOrNames


class ImageSequences(SequenceDataModule):
    """conf/data/mnist.yaml explains the arguments. Raises UserError for images that are missing or damaged.

    If `train_orderings` is given, the images of a training or validation batch take these orderings in turn; for each
    training batch, the orderings are shuffled first. The test images take `test_orderings` in turn. `orderings` then
    only sets how many pieces a frame stacks.
    """

    def __init__(
        self,
        dataset: Dataset,
        root: str | None,
        grid: Grid,
        orderings: OrderingsOrNames,
        validation_images: Natural,
        validation_seed: Natural,
        batch_size: Count,
        seed: Natural,
        augmentation: Augmentation,
        train_orderings: OrderingsOrNames | None = None,
        test_orderings: OrderingsOrNames | None = None,
        fold: Natural | None = None,
        num_folds: AtLeastTwo = 5,
    ):
        permutations = permutations_of("orderings", orderings, grid)
        self.train_orderings = permutations_of("train_orderings", train_orderings or (), grid, len(permutations))
        self.test_orderings = permutations_of("test_orderings", test_orderings or (), grid, len(permutations))
        images = load_images(dataset, root)
        _, channels, height, width = images.train_images.shape
        if height % grid[0] or width % grid[1]:
            rule = f"does not split images of {height} x {width} into equal pieces"
            raise UserError(f"data.grid: {list(grid)} {rule}; write another, or pad or crop the images.")
        frame_shape = channels, len(permutations) * (height // grid[0]), width // grid[1]
        spec = SequenceSpec(frame_shape, len(permutations[0]), numbered_names(images.num_classes))
        train, test = images.datasets()
        test = TensorDataset(*test.tensors, torch.arange(len(test)))
        held_out = draw_validation(len(train), validation_images, validation_seed, fold, num_folds)
        super().__init__(spec, train, test, held_out, batch_size, seed)
        self.images, self.augmentation = images, augmentation
        self.grid, self.orderings = tuple(grid), permutations
        if self.train_orderings and not (test_orderings or all(one in self.train_orderings for one in permutations)):
            rule = "so the test reads data.orderings, not all of which are trained"
            self.warnings = [f"data.test_orderings: null, {rule}"]

    def on_after_batch_transfer(self, batch: tuple[Tensor, ...], dataloader_idx: int) -> Batch:
        images, labels, *numbers = batch  # of the images of the test
        mixed = self.test_orderings if self.trainer and self.trainer.testing else self.train_orderings
        if self.is_training:
            images = self.augmentation(images)
            if mixed and not self.repeats_batches:
                mixed = [mixed[index] for index in torch.randperm(len(mixed)).tolist()]
        return Batch(scaled(self.cut(images, mixed, *numbers)), labels)

    def cut(
        self,
        images: Shaped[Tensor, "batch channels height width"],
        mixed: Orderings,
        turns: Int64[Tensor, " batch"] | None = None,
    ) -> Shaped[Tensor, "batch steps channels stack columns"]:
        """Cuts the images in `orderings`. If there are mixed ones, an image with turn 0 takes the first of them, as
        many as a frame stacks, one with turn 1 the next ones, and so on; after the last, the first are used again.
        """
        if not mixed:
            return frames_of(images, self.orderings, self.grid)
        samples = torch.arange(len(images), device=images.device)
        stacks = torch.tensor(mixed, device=images.device).unflatten(0, (-1, len(self.orderings))).transpose(1, 2)
        # [batch, steps, orderings]: the piece that is shown
        shown = stacks[(samples if turns is None else turns) % len(stacks)] - 1
        return split_pieces(images, self.grid)[samples[:, None, None], shown].transpose(2, 3).flatten(3, 4)

    def test_samples(self, indices: Int64[Tensor, " samples"], num_windows: int = 1) -> Batch:
        images, labels, numbers = self.test[indices]
        return Batch(self.cut(images, self.test_orderings, numbers), labels)

    def test_pictures(self, indices: Int64[Tensor, " samples"]) -> UInt8[Tensor, "samples channels height width"]:
        return self.test[indices][0]


def permutations_of(key: str, orderings: Sequence[Sequence[int] | str], grid: Grid, num_stacked: int = 1) -> Orderings:
    """Raises UserError for what is no ordering, and for a number of them that does not fill frames."""
    try:
        permutations = orderings_of(orderings, grid)
    except ValueError as error:
        raise UserError(f"data.{key}: {error}") from error
    if len(permutations) % num_stacked:
        rule = f"cannot fill frames that stack {num_stacked}; write a multiple of {num_stacked}"
        raise UserError(f"data.{key}: {len(permutations)} orderings {rule}.")
    return permutations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from quadrant_lstm import ORDERINGS, sequences
from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.image_sequences import ImageSequences
from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import QUADRANTS, scaled
from quadrant_lstm.errors import UserError
from tests.networks import trainer

TRAINED = [[2, 1, 3, 4], [4, 3, 1, 2], [3, 4, 2, 1]]


def data_module(dataset="mnist", root=None, validation_images=5000, validation_seed=0, seed=1, **options):
    options = {"orderings": [list(ordering) for ordering in ORDERINGS], "batch_size": 64} | options
    return ImageSequences(
        dataset, root, QUADRANTS, validation_images=validation_images, validation_seed=validation_seed, seed=seed,
        augmentation=Augmentation(), **options,
    )  # fmt: skip


@pytest.fixture
def tiny(idx_folder):
    """Returns a function that makes a DataModule of 200 training and 70 test images."""
    return lambda **options: data_module("idx", str(idx_folder), **({"validation_images": 40} | options))


def test_validation_is_the_same_for_every_seed_and_disjoint_from_training(tiny):
    one, other = tiny(seed=1), tiny(seed=2)
    assert torch.equal(one.validation_indices, other.validation_indices)
    assert len(one.validation_indices) == 40
    both = torch.cat([one.train_indices, one.validation_indices])
    assert torch.equal(both.sort().values, torch.arange(200))
    assert not torch.equal(one.validation_indices, tiny(validation_seed=1).validation_indices)


def test_each_training_image_is_in_one_fold(tiny):
    folds = [tiny(fold=fold, num_folds=3).validation_indices for fold in range(3)]
    assert list(map(len, folds)) == [66, 67, 67]
    assert torch.equal(torch.cat(folds).sort().values, torch.arange(200))
    with pytest.raises(UserError, match="data.num_folds: 201, but there are 200 training samples; write fewer."):
        tiny(fold=0, num_folds=201)


def test_each_split_has_its_own_images_as_uint8_which_become_frames_in_0_1():
    mnist, data = load_images("mnist", None), data_module()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        loader.sampler.set_epoch(2)
        indices, (images, labels) = next(iter(loader.sampler)).numpy(), next(iter(loader))
        assert images.dtype == torch.uint8
        assert np.array_equal(images.numpy(), mnist.train_images[indices])
        assert np.array_equal(labels.numpy(), mnist.train_labels[indices])
    tested = [torch.cat(parts).numpy() for parts in zip(*data.test_dataloader(), strict=True)]
    assert np.array_equal(tested[0], mnist.test_images)
    assert np.array_equal(tested[1], mnist.test_labels)
    frames, same_labels, lengths, _ = data.on_after_batch_transfer((images, labels), 0)
    assert (frames.shape, frames.dtype, frames.max()) == ((64, 4, 1, 56, 14), torch.float32, 1)
    assert torch.equal(frames * 255, sequences(images).float())
    assert torch.equal(labels, same_labels)
    assert lengths is None


def test_a_frame_stacks_the_orderings_whose_turn_it_is(tiny):
    images = torch.arange(3)[:, None, None, None] * 10 + torch.tensor([[[[1, 2], [3, 4]]]])  # quadrants of one pixel
    mixed = [[1, 2, 3, 4], [4, 3, 2, 1], *TRAINED[:2]]
    frames = tiny(orderings=mixed[:2]).cut(images, mixed)
    assert frames.shape == (3, 4, 1, 2, 1)
    expected = [mixed[:2], [[10 + quadrant for quadrant in ordering] for ordering in mixed[2:]]]
    assert frames[:2, :, 0, :, 0].transpose(1, 2).tolist() == expected
    assert torch.equal(frames[2], frames[0] + 20)


def test_a_test_in_orderings_that_are_not_trained_is_warned_of(tiny):
    (warning,) = tiny(orderings=[[1, 2, 3, 4]], train_orderings=TRAINED).warnings
    assert warning.startswith("data.test_orderings: null, so the test reads data.orderings, not all of which are tr")
    assert not tiny(orderings=TRAINED[:1], train_orderings=TRAINED).warnings


def test_training_draws_its_orderings_and_the_test_has_its_own(tiny):
    data = tiny(orderings=[[1, 2, 3, 4]], train_orderings=TRAINED, test_orderings=[[1, 4, 2, 3]])
    images = torch.tensor([[[[1, 2], [3, 4]]]]).expand(9, 1, 2, 2)

    def orderings_in(split, **options):
        data.trainer = SimpleNamespace(training=split == "train", testing=split == "test", **options)
        batch = images, torch.zeros(9, dtype=torch.long)
        frames = data.on_after_batch_transfer(batch, 0).frames
        return [[round(pixel * 255) for pixel in steps] for steps in frames.flatten(1).tolist()]

    torch.manual_seed(0)
    batches = [orderings_in("train") for _ in range(5)]
    assert all(sorted(batch) == sorted(3 * TRAINED) for batch in batches)
    assert len({str(batch) for batch in batches}) > 1
    assert orderings_in("train", overfit_batches=1) == orderings_in("val") == 3 * TRAINED
    assert orderings_in("test") == 9 * [[1, 4, 2, 3]]


def test_a_test_image_has_the_same_ordering_in_any_batch(tiny):
    data = tiny(orderings=[[1, 2, 3, 4]], test_orderings=TRAINED)
    data.trainer = SimpleNamespace(training=False, testing=True)
    whole = data.on_after_batch_transfer(data.test[:20], 0).frames
    halves = [data.on_after_batch_transfer(data.test[rank:20:2], 0).frames for rank in (0, 1)]  # of two processes
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), whole)
    numbers = torch.tensor([1, 9, 10, 15])
    assert torch.equal(scaled(data.test_samples(numbers).frames), whole[numbers])


@pytest.mark.parametrize(("options", "batches"), [({"overfit_batches": 1}, 1), ({"limit_train_batches": 1}, 3)])
def test_lightning_sets_the_epoch_of_the_sampler_and_repeats_an_overfitted_batch(options, batches, tiny):
    class Recorder(BoringModel):
        def __init__(self):
            super().__init__()
            self.epochs, self.pixels = [], set()

        def training_step(self, batch, batch_idx):
            self.epochs.append(self.trainer.train_dataloader.sampler.epoch)
            self.pixels.add(batch[0].sum().item())
            return self.layer(torch.zeros(1, 32)).sum()

        def validation_step(self, batch, batch_idx):
            pass

    model = Recorder()
    trainer(max_epochs=3, **options).fit(model, datamodule=tiny())
    assert model.epochs == [0, 1, 2]
    assert len(model.pixels) == batches

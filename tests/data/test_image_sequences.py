from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from quadrant_lstm import ORDERINGS, sequences
from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.image_sequences import ImageSequences, mixed_sequences
from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import QUADRANTS, scaled
from quadrant_lstm.errors import UserError
from tests.networks import trainer


def data_module(dataset="mnist", root=None, validation_images=5000, validation_seed=0, seed=1, **options):
    options = {"orderings": [list(ordering) for ordering in ORDERINGS], "batch_size": 64} | options
    return ImageSequences(
        dataset, root, QUADRANTS, validation_images=validation_images, validation_seed=validation_seed, seed=seed,
        augmentation=Augmentation(), **options,
    )  # fmt: skip


def test_validation_is_the_same_for_every_seed_and_disjoint_from_training():
    one, other = data_module(seed=1), data_module(seed=2)
    assert torch.equal(one.validation_indices, other.validation_indices)
    assert len(one.validation_indices) == 5000
    both = torch.cat([one.train_indices, one.validation_indices])
    assert torch.equal(both.sort().values, torch.arange(60000))
    assert not torch.equal(one.validation_indices, data_module(validation_seed=1).validation_indices)


def test_each_training_image_is_in_one_fold(idx_folder):
    folds = [data_module("idx", str(idx_folder), fold=fold, num_folds=3) for fold in range(3)]
    assert [len(data.validation_indices) for data in folds] == [66, 67, 67]
    assert torch.equal(torch.cat([data.validation_indices for data in folds]).sort().values, torch.arange(200))
    for data in folds:
        both = torch.cat([data.train_indices, data.validation_indices])
        assert torch.equal(both.sort().values, torch.arange(200))


def test_a_fold_is_the_same_for_every_seed():
    one, other = data_module(seed=1, fold=2), data_module(seed=2, fold=2)
    assert len(one.validation_indices) == 12000
    assert torch.equal(one.validation_indices, other.validation_indices)


def test_test_images_never_enter_training_or_validation():
    images = load_images("mnist", None)
    data = data_module()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert loader.data.tensors[0].data_ptr() == images.train_images.ctypes.data
    batches = list(data.test_dataloader())
    assert np.array_equal(torch.cat([batch[0] for batch in batches]).numpy(), images.test_images)
    assert np.array_equal(torch.cat([batch[1] for batch in batches]).numpy(), images.test_labels)


def test_uint8_images_become_frames_in_0_1_on_the_device():
    data = data_module()
    images, labels = next(iter(data.train_dataloader()))
    assert images.dtype == torch.uint8
    assert images.shape == (64, 1, 28, 28)
    frames, same_labels, lengths = data.on_after_batch_transfer((images, labels), 0)
    assert lengths is None
    assert frames.shape == (64, 4, 1, 56, 14)
    assert frames.dtype == torch.float32
    assert frames.max() == 1
    assert torch.equal(frames * 255, sequences(images).float())
    assert torch.equal(labels, same_labels)


TRAINED = [[2, 1, 3, 4], [4, 3, 1, 2], [3, 4, 2, 1]]


def test_images_use_the_orderings_in_turn():
    images = torch.arange(7)[:, None, None, None] * 10 + torch.tensor([[[[1, 2], [3, 4]]]])  # quadrants of one pixel
    frames = mixed_sequences(images, torch.arange(7), TRAINED, 1, QUADRANTS)
    assert frames.shape == (7, 4, 1, 1, 1)
    assert frames.flatten(1).tolist() == [[10 * n + quadrant for quadrant in TRAINED[n % 3]] for n in range(7)]
    two = mixed_sequences(images, torch.arange(7), [*TRAINED, [1, 2, 3, 4]], 2, QUADRANTS)
    assert two[0, :, 0, :, 0].tolist() == [[2, 4], [1, 3], [3, 1], [4, 2]]
    assert two[1, :, 0, :, 0].tolist() == [[13, 11], [14, 12], [12, 13], [11, 14]]
    assert torch.equal(two[2] - 20, two[0])
    few = mixed_sequences(images[:2], torch.tensor([5, 6]), TRAINED, 1, QUADRANTS)
    assert few.flatten(1).tolist() == [TRAINED[2], [10 + quadrant for quadrant in TRAINED[0]]]


def test_training_draws_its_orderings_and_the_test_has_its_own():
    data = data_module()
    data.orderings, data.train_orderings, data.test_orderings = [(1, 2, 3, 4)], TRAINED, [[1, 4, 2, 3]]
    images = torch.tensor([[[[1, 2], [3, 4]]]]).expand(9, 1, 2, 2)

    def orderings_in(split):
        data.trainer = SimpleNamespace(training=split == "train", testing=split == "test")
        frames = data.on_after_batch_transfer((images, torch.zeros(9, dtype=torch.long), torch.arange(9)), 0).frames
        return [[round(pixel * 255) for pixel in steps] for steps in frames.flatten(1).tolist()]

    torch.manual_seed(0)
    batches = [orderings_in("train") for _ in range(5)]
    assert all(sorted(batch) == sorted(3 * TRAINED) for batch in batches)
    assert len({str(batch) for batch in batches}) > 1
    assert orderings_in("val") == 3 * TRAINED
    assert orderings_in("test") == 9 * [[1, 4, 2, 3]]


def test_labels_stay_with_their_images():
    images = load_images("mnist", None)
    data = data_module()
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)
    indices = next(iter(loader.sampler))
    pixels, labels = next(iter(loader))
    assert np.array_equal(pixels.numpy(), images.train_images[indices.numpy()])
    assert np.array_equal(labels.numpy(), images.train_labels[indices.numpy()])


def test_lightning_sets_the_epoch_of_the_sampler(idx_folder):
    class Recorder(BoringModel):
        def __init__(self):
            super().__init__()
            self.epochs = []

        def training_step(self, batch, batch_idx):
            self.epochs.append(self.trainer.train_dataloader.sampler.epoch)
            return self.layer(torch.zeros(1, 32)).sum()

        def val_dataloader(self):
            return []

    model, loader = Recorder(), data_module("idx", str(idx_folder), 40).train_dataloader()
    trainer(max_epochs=3, limit_train_batches=1).fit(model, train_dataloaders=loader)
    assert model.epochs == [0, 1, 2]


def test_an_overfitted_batch_is_the_same_in_every_epoch(idx_folder):
    class Recorder(BoringModel):
        def __init__(self):
            super().__init__()
            self.pixels = []

        def training_step(self, batch, batch_idx):
            self.pixels.append(batch[0].sum().item())
            return self.layer(torch.zeros(1, 32)).sum()

        def validation_step(self, batch, batch_idx):
            pass

    def batches_of_three_epochs(**options):
        model = Recorder()
        trainer(max_epochs=3, **options).fit(model, datamodule=data_module("idx", str(idx_folder), 40))
        return model.pixels

    assert len(set(batches_of_three_epochs(overfit_batches=1))) == 1
    assert len(set(batches_of_three_epochs(limit_train_batches=1))) == 3


def test_an_overfitted_batch_keeps_its_orderings(idx_folder):
    data = data_module("idx", str(idx_folder), 40, orderings=[[1, 2, 3, 4]], train_orderings=TRAINED)
    data.trainer = SimpleNamespace(training=True, testing=False, overfit_batches=1)
    images, labels = data.train[:8]
    first, second = (data.on_after_batch_transfer((images, labels), 0).frames for _ in range(2))
    assert torch.equal(first, second)


def test_test_samples_have_the_orderings_of_the_test(idx_folder):
    data = data_module("idx", str(idx_folder), 40, orderings=[[1, 2, 3, 4]], test_orderings=TRAINED, batch_size=8)
    data.trainer = SimpleNamespace(training=False, testing=True)
    numbers = torch.tensor([1, 9, 10, 15])
    batches = [data.test[start : start + 7] for start in range(0, 21, 7)]
    tested = torch.cat([data.on_after_batch_transfer(batch, 0).frames for batch in batches])
    assert torch.equal(scaled(data.test_samples(numbers).frames), tested[numbers])


def test_a_test_image_has_the_same_ordering_in_one_process_and_in_two(idx_folder):
    data = data_module("idx", str(idx_folder), 40, orderings=[[1, 2, 3, 4]], test_orderings=TRAINED)
    data.trainer = SimpleNamespace(training=False, testing=True)
    whole = data.on_after_batch_transfer(data.test[:8], 0).frames
    halves = [data.on_after_batch_transfer(data.test[rank:8:2], 0).frames for rank in (0, 1)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), whole)


def test_a_split_without_training_images_is_refused(idx_folder):
    with pytest.raises(UserError, match="data.validation_images: 200 of 200 training samples leave none to train on"):
        data_module("idx", str(idx_folder), validation_images=200)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({"fold": 5}, "data.fold: 5, but data.num_folds=5 makes folds 0 to 4; write one."),
        ({"fold": 0, "num_folds": 201}, "data.num_folds: 201, but there are 200 training samples; write fewer."),
    ],
)
def test_a_fold_that_does_not_exist_is_refused(folds, message, idx_folder):
    with pytest.raises(UserError, match=message):
        data_module("idx", str(idx_folder), **folds)

import pytest
import torch

from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.datamodule import SequenceDataModule


@pytest.fixture
def images():
    return torch.randint(0, 256, (5, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def highest_draws(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.ones(shape))


def test_nothing_to_draw_leaves_images_as_they_are(images):
    assert Augmentation()(images) is images


@pytest.mark.usefixtures("highest_draws")
def test_a_quarter_turn_is_one(images):
    turned = Augmentation(rotation=90.0)(images)
    torch.testing.assert_close(turned, torch.rot90(images, 1, (2, 3)).float(), rtol=0, atol=1e-3)


@pytest.mark.usefixtures("highest_draws")
def test_what_is_not_square_is_turned_and_not_distorted():
    bar = torch.zeros(1, 1, 20, 40)
    bar[:, :, 9:11, 14:26] = 1.0
    turned = Augmentation(rotation=90.0)(bar)
    assert turned[:, :, 4:16, 19:21].sum() == pytest.approx(24)


@pytest.mark.usefixtures("highest_draws")
def test_a_shift_is_in_pixels(images):
    moved = Augmentation(shift=3.0)(images)
    torch.testing.assert_close(moved[:, :, :5, :5], images[:, :, 3:, 3:].float())
    assert (moved[:, :, 5:] == 0).all()


@pytest.mark.usefixtures("highest_draws")
def test_zoom_and_shear_are_shares_of_the_size():
    square = torch.zeros(1, 1, 40, 40)
    square[:, :, 16:24, 16:24] = 1.0
    assert Augmentation(zoom=0.5)(square).sum() == pytest.approx(64 * 1.5**2, rel=0.01)
    sheared = Augmentation(shear=0.5)(square)
    assert sheared.sum() == pytest.approx(64, rel=0.01)
    columns = torch.arange(40.0)
    first, last = ((sheared[0, 0, row] * columns).sum() / sheared[0, 0, row].sum() for row in (16, 23))
    assert first - last == pytest.approx(0.5 * 7, abs=0.1)  # seven rows further down, half as far to the left


@pytest.mark.usefixtures("highest_draws")
def test_where_all_points_are_moved_alike_bending_is_a_shift_in_pixels(images):
    images = images[..., :6]  # not square
    bent = Augmentation(elastic=2.0)(images)
    torch.testing.assert_close(bent, Augmentation(shift=2.0)(images), rtol=0, atol=1e-3)


def test_bending_moves_parts_of_an_image_by_themselves_and_neighbours_together():
    torch.manual_seed(0)
    bends = Augmentation(elastic=2.0).bends(torch.zeros(500, 1, 29, 29)) * 29 / 2  # in pixels
    corners, middle = bends[:, ::28, ::28].flatten(1), bends[:, 14, 14]
    assert corners.abs().max() <= 2.0
    assert middle.abs().max() <= 2.0
    drawn = torch.cat([corners, middle], dim=1)
    assert drawn.std() == pytest.approx(2 / 3**0.5, rel=0.05)  # evenly from -2 to 2
    assert drawn.T.corrcoef().fill_diagonal_(0).abs().max() < 0.2
    assert (bends[:, 1:] - bends[:, :-1]).abs().max() < 1  # a pixel is not torn from the next


def test_what_is_erased_is_a_rectangle_of_at_most_half_the_size():
    torch.manual_seed(0)
    erased = Augmentation(erase=0.5)(torch.ones(400, 1, 28, 28)) == 0
    rows, columns = erased.any(3).sum(2), erased.any(2).sum(2)
    assert (erased.sum((2, 3)) == rows * columns).all()
    assert rows.max() <= 14
    assert columns.max() <= 14
    assert erased.any((1, 2, 3)).float().mean() == pytest.approx(0.5, abs=0.1)  # a few are narrower than a pixel


def test_each_image_has_draws_of_its_own_and_a_seed_repeats_them():
    augment = Augmentation(rotation=30.0, shift=2.0, zoom=0.2, shear=0.2, elastic=1.0, erase=0.5)
    same = torch.randint(0, 256, (1, 1, 28, 28)).expand(6, -1, -1, -1)
    torch.manual_seed(1)
    first = augment(same)
    torch.manual_seed(1)
    torch.testing.assert_close(augment(same), first, rtol=0, atol=0)
    assert all((first[a] != first[b]).any() for a in range(6) for b in range(a))


def test_only_training_images_are_augmented(idx_folder):
    augmentation = Augmentation(rotation=90.0)
    data = SequenceDataModule(
        "idx", str(idx_folder), [[1, 2, 3, 4]], validation_images=40, validation_seed=0, batch_size=16, seed=0,
        augmentation=augmentation,
    )  # fmt: skip
    batch = next(iter(data.val_dataloader()))

    class Trainer:
        training = testing = False

    data.trainer = Trainer()
    plain, _ = data.on_after_batch_transfer(batch, 0)
    data.trainer.training = True
    augmented, _ = data.on_after_batch_transfer(batch, 0)
    assert (plain * 255 == (plain * 255).round()).all()
    assert (plain != augmented).any()
    assert plain.shape == augmented.shape

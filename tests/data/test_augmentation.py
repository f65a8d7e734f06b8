from types import SimpleNamespace

import pytest
import torch

from quadrant_lstm.data.augmentation import Augmentation, ClipAugmentation, SeriesAugmentation
from quadrant_lstm.data.image_sequences import ImageSequences
from quadrant_lstm.data.orderings import QUADRANTS
from tests.series import series_in, write_series_folder


@pytest.fixture
def images():
    return torch.randint(0, 256, (5, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def highest_draws(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.ones(shape))


@pytest.mark.usefixtures("highest_draws")
def test_a_rotation_is_in_degrees_without_distortion_and_a_shift_in_pixels(images):
    rotated = Augmentation(rotation=90.0)(images)
    torch.testing.assert_close(rotated, torch.rot90(images, 1, (2, 3)).float(), rtol=0, atol=1e-3)
    bar = torch.zeros(1, 1, 20, 40)
    bar[:, :, 9:11, 14:26] = 1.0
    assert Augmentation(rotation=90.0)(bar)[:, :, 4:16, 19:21].sum() == pytest.approx(24)
    shifted = Augmentation(shift=3.0)(images)
    torch.testing.assert_close(shifted[:, :, :5, :5], images[:, :, 3:, 3:].float())
    assert (shifted[:, :, 5:] == 0).all()
    narrow = images[..., :6]
    torch.testing.assert_close(Augmentation(elastic=2.0)(narrow), Augmentation(shift=2.0)(narrow), rtol=0, atol=1e-3)


@pytest.mark.usefixtures("highest_draws")
def test_zoom_and_shear_are_shares_of_the_size():
    square = torch.zeros(1, 1, 40, 40)
    square[:, :, 16:24, 16:24] = 1.0
    assert Augmentation(zoom=0.5)(square).sum() == pytest.approx(64 * 1.5**2, rel=0.01)
    sheared = Augmentation(shear=0.5)(square)
    assert sheared.sum() == pytest.approx(64, rel=0.01)
    columns = torch.arange(40.0)
    first, last = ((sheared[0, 0, row] * columns).sum() / sheared[0, 0, row].sum() for row in (16, 23))
    assert first - last == pytest.approx(0.5 * 7, abs=0.1)  # 7 rows down move by 3.5 to the left


def test_elastic_offsets_are_independent_far_apart_and_alike_for_neighbours():
    torch.manual_seed(0)
    offsets = Augmentation(elastic=2.0).offsets(torch.zeros(500, 1, 29, 29)) * 29 / 2  # in pixels
    points = torch.cat([offsets[:, ::28, ::28].flatten(1), offsets[:, 14, 14]], dim=1)  # corners and centre
    assert points.abs().max() <= 2.0
    assert points.std() == pytest.approx(2 / 3**0.5, rel=0.05)  # uniform from -2 to 2
    assert points.T.corrcoef().fill_diagonal_(0).abs().max() < 0.2
    assert (offsets[:, 1:] - offsets[:, :-1]).abs().max() < 1


def test_a_rectangle_of_at_most_half_the_size_is_erased():
    torch.manual_seed(0)
    erased = Augmentation(erase=0.5)(torch.ones(400, 1, 28, 28)) == 0
    rows, columns = erased.any(3).sum(2), erased.any(2).sum(2)
    assert (erased.sum((2, 3)) == rows * columns).all()
    assert rows.max() <= 14
    assert columns.max() <= 14
    assert erased.any((1, 2, 3)).float().mean() == pytest.approx(0.5, abs=0.1)  # some are narrower than a pixel


def test_images_are_augmented_independently_and_reproducibly(images):
    assert Augmentation()(images) is images
    augmentation = Augmentation(rotation=30.0, shift=2.0, zoom=0.2, shear=0.2, elastic=1.0, erase=0.5)
    same = images[:1].expand(6, -1, -1, -1)
    torch.manual_seed(1)
    first = augmentation(same)
    torch.manual_seed(1)
    torch.testing.assert_close(augmentation(same), first, rtol=0, atol=0)
    assert all((first[a] != first[b]).any() for a in range(6) for b in range(a))


def test_only_training_images_are_augmented(idx_folder):
    data = ImageSequences("idx", str(idx_folder), QUADRANTS, [[1, 2, 3, 4]], 40, 0, 16, 0, Augmentation(rotation=90.0))

    def frames(training, testing):
        data.trainer = SimpleNamespace(training=training, testing=testing)
        return data.on_after_batch_transfer(data.test[:16], 0).frames

    assert torch.equal(frames(False, True), frames(False, False))
    assert torch.equal(frames(False, True) * 255, data.test_samples(torch.arange(16)).frames.float())
    assert not torch.equal(frames(False, True), frames(True, False))


CLIP_OPTIONS = ("flip", "crop", "colour", "rotation", "shift", "erase")


@pytest.mark.parametrize("option", CLIP_OPTIONS)
def test_all_frames_of_a_clip_are_changed_alike_and_clips_differently(option):
    values = dict.fromkeys(CLIP_OPTIONS, 0.0) | {option: {"rotation": 20.0, "shift": 4.0}.get(option, 0.5)}
    still = torch.randint(256, (8, 1, 3, 20, 30), dtype=torch.uint8).expand(-1, 4, -1, -1, -1)
    torch.manual_seed(0)
    changed = ClipAugmentation(**values)(still)
    assert (changed.dtype, changed.shape) == (still.dtype, still.shape)
    assert torch.equal(changed, changed[:, :1].expand_as(changed))
    assert 2 <= sum(not torch.equal(*pair) for pair in zip(changed, still, strict=True)) <= 8
    same = ClipAugmentation(**values)(still[:1].expand_as(still))
    assert not all(torch.equal(clip, same[0]) for clip in same)
    assert ClipAugmentation(**dict.fromkeys(CLIP_OPTIONS, 0.0))(still) is still
    if option == "flip":
        assert torch.equal(ClipAugmentation(**values | {"flip": 1.0})(still), still.flip(4))


@pytest.mark.parametrize("window", [(), (5,)])
def test_half_of_the_series_change_the_sign_of_the_mirrored_features(window):
    series, deviation = torch.randn(400, 3, 6, *window), torch.ones(6)
    changed = SeriesAugmentation(mirror=[1, 5, 6])(series, deviation)
    other_hand = series.clone()
    other_hand[:, :, [0, 4, 5]] *= -1
    is_mirrored = (changed == other_hand).flatten(1).all(1)
    assert torch.equal(changed[~is_mirrored], series[~is_mirrored])
    assert 140 < is_mirrored.sum() < 260  # six deviations
    assert SeriesAugmentation()(series, deviation) is series


@pytest.mark.parametrize("window", [(), (5,)])
def test_the_axes_of_all_sensors_are_turned_alike_by_at_most_the_rotation(window):
    upward = torch.tensor([0.0, 0, 1]).view(3, *[1] * len(window)).expand(200, 4, 3, *window)
    changed = SeriesAugmentation(rotation=30.0)(torch.cat([upward, 2 * upward], dim=2), torch.ones(6))
    first, second = changed.split(3, dim=2)
    torch.testing.assert_close(second, 2 * first)
    torch.testing.assert_close(first.norm(dim=2), torch.ones(200, 4, *window))
    assert torch.equal(first, first[:, :1].expand_as(first))  # at all times
    degrees = first[:, :, 2].clamp(max=1).acos().rad2deg()
    assert 24 < degrees.max() <= 30.01
    directions = first[:, 0, :2].reshape(200, 2, -1)[:, :, 0].sign()
    assert len(directions.unique(dim=0)) == 4


def test_scales_are_of_each_feature_and_noise_is_a_fraction_of_its_deviation():
    series, deviation = torch.ones(500, 4, 2), torch.tensor([1.0, 10.0])
    scaled = SeriesAugmentation(scale=0.2)(series, deviation)
    assert torch.equal(scaled, scaled[:, :1].expand_as(scaled))
    assert 0.8 <= scaled.min() < 0.81 and 1.19 < scaled.max() <= 1.2
    assert abs(torch.corrcoef(scaled[:, 0].T)[0, 1]) < 0.2
    noise = SeriesAugmentation(noise=0.1)(series, deviation) - series
    torch.testing.assert_close(noise.flatten(0, 1).std(0), 0.1 * deviation, rtol=0.1, atol=0)
    assert abs(torch.corrcoef(noise[:, :2, 0].T)[0, 1]) < 0.2


def test_only_training_series_are_augmented(tmp_path):
    data = series_in(write_series_folder(tmp_path / "data"), augmentation=SeriesAugmentation(scale=0.5, noise=0.5))
    batch = data.test_samples(torch.arange(4))

    def frames(training):
        data.trainer = SimpleNamespace(training=training)
        return data.on_after_batch_transfer(batch, 0).frames

    assert torch.equal(frames(False), batch.frames)
    assert not torch.equal(frames(True), batch.frames)
    assert batch.lengths.tolist() == [2, 3, 3, 3]
    assert (frames(True)[0] != 0).all(1).tolist() == [True, True, False]  # no noise in the padding

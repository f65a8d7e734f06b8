from types import SimpleNamespace

import pytest
import torch

from quadrant_lstm.data.moving_digits import ARROWS, VELOCITIES, MovingDigits, draw_motions, move
from quadrant_lstm.errors import UserError


def moving_digits(label="motion", num_frames=8, canvas=(40, 40), speed=3, seed=1):
    return MovingDigits("mnist", None, label, num_frames, canvas, speed, 5000, 0, 64, seed)


def moved_slowly(image, direction, row, column, num_frames, canvas, speed):
    """Draws each pixel of each frame by itself."""
    (height, width), (down, right) = canvas, VELOCITIES[direction]
    frames = torch.zeros(num_frames, image.shape[0], height, width, dtype=torch.uint8)
    for step in range(num_frames):
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                top, left = row + step * speed * down, column + step * speed * right
                frames[step, :, (top + y) % height, (left + x) % width] = image[:, y, x]
    return frames


def test_clips_equal_frames_that_are_drawn_pixel_by_pixel():
    images = torch.randint(1, 256, (8, 2, 3, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    motions = torch.tensor([[direction, 4, 1] for direction in range(8)])
    clips = move(images, motions, 5, (7, 6), 2)
    for image, motion, clip in zip(images, motions.tolist(), clips, strict=True):
        assert torch.equal(clip, moved_slowly(image, *motion, 5, (7, 6), 2))


def test_the_arrows_point_where_the_digit_moves():
    (clip,) = move(torch.full((1, 1, 1, 1), 9, dtype=torch.uint8), torch.tensor([[0, 1, 2]]), 3, (2, 4), 1)
    assert clip.flatten(1).argmax(1).tolist() == [4 + 2, 4 + 3, 4 + 0]  # to the right, and in again on the left
    velocities = dict(zip(ARROWS, VELOCITIES, strict=True))
    assert (velocities["→"], velocities["↖"], velocities["↓"]) == ((0, 1), (-1, -1), (1, 0))


def test_every_position_is_as_likely_in_the_last_frame_as_in_the_first():
    motions = draw_motions(40_000, (4, 5), torch.Generator().manual_seed(0))
    clips = move(torch.full((40_000, 1, 1, 1), 1, dtype=torch.uint8), motions, 4, (4, 5), 1)
    for direction in range(8):
        shares = clips[motions[:, 0] == direction].float().mean(0)
        assert torch.allclose(shares, torch.tensor(1 / 20), atol=0.016)  # five standard deviations


def test_the_label_is_the_digit_or_its_direction_each_of_which_is_equally_likely():
    digits, motion, first = moving_digits("digit"), moving_digits(), torch.arange(3)
    assert digits.test_samples(first).labels.tolist() == [7, 2, 1]
    assert motion.test_samples(first).labels.tolist() == motion.test[first][2][:, 0].tolist()
    assert (digits.spec.num_classes, motion.spec.num_classes) == (10, 8)
    labels = digits.images.train_labels[digits.train_indices.numpy()].tolist()
    assert digits.class_counts().tolist() == [labels.count(digit) for digit in range(10)]
    assert motion.class_counts().tolist() == 8 * [1]


def test_test_clips_are_the_same_for_every_seed_and_training_clips_are_not():
    one, other = moving_digits(seed=1), moving_digits(seed=2)
    assert torch.equal(one.test_samples(torch.arange(9)).frames, other.test_samples(torch.arange(9)).frames)
    batch = one.train[:9]
    frames, _, lengths, _ = one.on_after_batch_transfer(batch, 0)  # outside training, motions stay
    assert torch.equal(frames, other.on_after_batch_transfer(other.train[:9], 0).frames)
    assert (frames.shape, lengths) == ((9, 8, 1, 40, 40), None)
    assert (frames.dtype, frames.max()) == (torch.float32, 1)

    def trained_on(seed, **options):
        one.trainer = SimpleNamespace(training=True, **options)
        torch.manual_seed(seed)
        return one.on_after_batch_transfer(batch, 0).frames

    assert torch.equal(trained_on(1), trained_on(1))
    assert not torch.equal(trained_on(1), trained_on(2))
    assert torch.equal(trained_on(1, overfit_batches=1), trained_on(2, overfit_batches=1))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"canvas": (40, 20)}, r"data.canvas: \[40, 20\] is smaller than the images; write at least"),
        ({"num_frames": 1}, "data.num_frames: 1 shows no motion; write at least 2"),
        ({"canvas": (30, 40), "speed": 20}, "data.speed: 20, but on a canvas of 30 x 40 pixels, opp"),
        ({"canvas": (40, 30), "speed": 30}, "data.speed: 30, but on a canvas of 40 x 30 pixels, opp"),
    ],
)
def test_motion_that_cannot_be_seen_is_refused(options, line):
    with pytest.raises(UserError, match=line):
        moving_digits(**options)

from types import SimpleNamespace

import pytest
import torch

from quadrant_lstm.data.moving_digits import ARROWS, VELOCITIES, MovingDigits, check_motion, draw_motions, move
from quadrant_lstm.errors import UserError

TRAINING = SimpleNamespace(training=True, testing=False)


def moving_digits(dataset="mnist", root=None, label="motion", canvas=(40, 40), seed=1, **options):
    return MovingDigits(dataset, root, label, 8, canvas, 3, 5000, 0, 64, seed, **options)


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


def test_a_dot_that_moves_to_the_right_enters_again_on_the_left():
    (clip,) = move(torch.full((1, 1, 1, 1), 9, dtype=torch.uint8), torch.tensor([[0, 1, 2]]), 3, (2, 4), 1)
    assert clip.flatten(1).argmax(1).tolist() == [4 + 2, 4 + 3, 4 + 0]


def test_the_arrows_point_where_the_digit_moves():
    assert dict(zip(ARROWS, VELOCITIES, strict=True))["↖"] == (-1, -1)
    assert dict(zip(ARROWS, VELOCITIES, strict=True))["↓"] == (1, 0)


def test_every_position_is_as_likely_in_the_last_frame_as_in_the_first():
    motions = draw_motions(40_000, (4, 5), torch.Generator().manual_seed(0))
    dots = torch.full((40_000, 1, 1, 1), 1, dtype=torch.uint8)
    clips = move(dots, motions, 4, (4, 5), 1)
    for direction in range(8):
        shares = clips[motions[:, 0] == direction].float().mean(0)
        assert torch.allclose(shares, torch.tensor(1 / 20), atol=0.016)  # five standard deviations


def test_the_label_is_the_digit_or_its_direction():
    digits, motion = moving_digits(label="digit"), moving_digits(label="motion")
    first = torch.arange(3)
    assert digits.test_samples(first).labels.tolist() == [7, 2, 1]
    assert motion.test_samples(first).labels.tolist() == motion.test[first][2][:, 0].tolist()
    assert (digits.spec.num_classes, motion.spec.num_classes) == (10, 8)


def test_test_clips_are_the_same_for_every_seed_and_training_clips_are_not():
    one, other = moving_digits(seed=1), moving_digits(seed=2)
    assert torch.equal(one.test_samples(torch.arange(9)).frames, other.test_samples(torch.arange(9)).frames)
    batch, same = one.train[torch.arange(9)], other.train[torch.arange(9)]  # outside training, motions stay
    assert torch.equal(one.on_after_batch_transfer(batch, 0).frames, other.on_after_batch_transfer(same, 0).frames)
    one.trainer = TRAINING
    clips = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        clips.append(one.on_after_batch_transfer(batch, 0).frames)
    assert torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[0], clips[2])


def test_frames_are_floats_from_0_to_1():
    data = moving_digits()
    frames, labels, lengths = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert frames.shape == (64, data.spec.num_steps, *data.spec.frame_shape) == (64, 8, 1, 40, 40)
    assert (frames.dtype, frames.max().item(), lengths) == (torch.float32, 1.0, None)
    assert labels.dtype == torch.int64


def test_a_canvas_smaller_than_the_images_is_refused():
    with pytest.raises(UserError, match=r"data.canvas: \[40, 20\] is smaller than the images of 28 x 28"):
        moving_digits(canvas=(40, 20))


def test_an_overfitted_batch_keeps_its_motions():
    data = moving_digits(label="motion")
    data.trainer = SimpleNamespace(training=True, overfit_batches=1)
    first, second = (data.on_after_batch_transfer(data.train[:8], 0) for _ in range(2))
    assert torch.equal(first.frames, second.frames)
    assert torch.equal(first.labels, second.labels)


@pytest.mark.parametrize(
    ("num_frames", "canvas", "speed", "line"),
    [
        (1, (40, 40), 3, "data.num_frames: 1 shows no motion; write at least 2"),
        (8, (30, 40), 20, "data.speed: with 20 pixels, opposite directions look alike on a canvas of 30 x 40; write"),
        (8, (40, 30), 30, "data.speed: with 30 pixels, opposite directions look alike on a canvas of 40 x 30; write"),
    ],
)
def test_motion_that_cannot_be_seen_is_refused(num_frames, canvas, speed, line):
    with pytest.raises(UserError, match=line):
        check_motion(num_frames, canvas, speed)
    check_motion(2, (40, 40), 3)

import pytest
import torch

from quadrant_lstm import split_quadrants
from quadrant_lstm.data.quadrants import occlude_quadrant


def test_quadrants_are_numbered_in_reading_order():
    image = torch.tensor([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])[None, None]
    assert split_quadrants(image)[0, :, 0].tolist() == [[[n, n], [n, n]] for n in (1, 2, 3, 4)]


def test_quadrants_of_images_that_are_not_square_join_to_the_image():
    images = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    first, second, third, fourth = split_quadrants(images).unbind(1)
    above, below = torch.cat([first, second], dim=3), torch.cat([third, fourth], dim=3)
    assert torch.equal(torch.cat([above, below], dim=2), images)


@pytest.mark.parametrize("quadrant", [1, 2, 3, 4])
def test_an_occluded_quadrant_is_blank_and_the_others_are_unchanged(quadrant):
    images = torch.rand(2, 3, 4, 6) + 1
    expected = split_quadrants(images).clone()
    expected[:, quadrant - 1] = 0
    assert torch.equal(split_quadrants(occlude_quadrant(images, quadrant)), expected)


def test_odd_sizes_are_refused():
    with pytest.raises(ValueError, match="3 x 4: quadrants need an even height and width; pad or crop"):
        split_quadrants(torch.zeros(1, 1, 3, 4))

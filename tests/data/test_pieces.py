import pytest
import torch

from quadrant_lstm import split_quadrants
from quadrant_lstm.data.orderings import occlude_piece, split_pieces


def test_quadrants_are_numbered_in_reading_order():
    image = torch.tensor([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])[None, None]
    assert split_quadrants(image)[0, :, 0].tolist() == [[[n, n], [n, n]] for n in (1, 2, 3, 4)]


def test_quadrants_of_images_that_are_not_square_join_to_the_image():
    images = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    first, second, third, fourth = split_quadrants(images).unbind(1)
    above, below = torch.cat([first, second], dim=3), torch.cat([third, fourth], dim=3)
    assert torch.equal(torch.cat([above, below], dim=2), images)


def test_the_pieces_of_any_grid_are_numbered_in_reading_order():
    image = torch.arange(6).view(1, 1, 2, 3)
    assert split_pieces(image, (2, 3)).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert split_pieces(image, (1, 3))[0, :, 0].tolist() == [[[0], [3]], [[1], [4]], [[2], [5]]]
    assert split_pieces(image, (2, 1))[0, :, 0].tolist() == [[[0, 1, 2]], [[3, 4, 5]]]


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 6])
def test_an_occluded_piece_is_blank_and_the_others_are_unchanged(piece):
    images = torch.rand(2, 3, 4, 6) + 1
    expected = split_pieces(images, (2, 3)).clone()
    expected[:, piece - 1] = 0
    assert torch.equal(split_pieces(occlude_piece(images, piece, (2, 3)), (2, 3)), expected)


def test_images_that_the_grid_does_not_divide_are_refused():
    with pytest.raises(ValueError, match="3 x 4, which cannot be split into 2 x 2 equal pieces; pad or crop them, or"):
        split_quadrants(torch.zeros(1, 1, 3, 4))

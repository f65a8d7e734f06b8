import torch
from torch import nn

from quadrant_lstm.dashboard.pictures.network import (
    accuracy_by_occluded_step,
    accuracy_by_order,
    correct_by_occluded_ordering,
    correct_by_occluded_piece,
    draw_occluded_orderings,
    draw_occluded_pieces,
    reorder,
)
from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.data.orderings import QUADRANTS


class FirstPixel(nn.Module):
    """Predicts class 1 if the first pixel of the second frame is bright."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(1))

    def forward(self, frames, lengths=None):
        pixel = self.weights * frames[:, 1, 0, 0, 0]
        return torch.stack([1 - pixel, pixel], 1)


def test_only_occluding_what_the_network_uses_costs_accuracy():
    images = torch.full((6, 1, 4, 4), 255, dtype=torch.uint8)
    labels = torch.ones(6, dtype=torch.long)
    orderings = [(1, 3, 2, 4), (4, 3, 2, 1)]
    by_piece = correct_by_occluded_piece(FirstPixel(), images, labels, orderings, QUADRANTS)
    assert by_piece.float().mean(1).tolist() == [1, 1, 0, 1]
    by_ordering = correct_by_occluded_ordering(FirstPixel(), images, labels, orderings, QUADRANTS)
    assert by_ordering.float().mean(1).tolist() == [0, 1]
    (axes,) = draw_occluded_pieces(by_piece, labels, QUADRANTS, "012").axes
    assert [label.get_text() for label in axes.get_yticklabels()][2] == "3: 0.0 %"
    (axes,) = draw_occluded_orderings(by_ordering, orderings, QUADRANTS, torch.tensor([1, 1, 1, 0, 0, 0])).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "1324", "4321"]
    assert [text.get_text() for text in axes.texts] == ["50.0", "0.0", "100.0"]


def test_a_blank_frame_costs_accuracy_only_where_the_network_looks():
    frames = torch.zeros(4, 3, 1, 2, 2, dtype=torch.uint8)
    frames[:, 1] = 255
    samples = Batch(frames, torch.ones(4, dtype=torch.long))
    assert accuracy_by_occluded_step(FirstPixel(), samples) == [1, 0, 1]


def test_real_frames_are_reordered_and_padding_stays_at_the_end():
    frames = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 0]], dtype=torch.uint8)[:, :, None, None, None]
    samples = Batch(frames, torch.ones(2, dtype=torch.long), torch.tensor([4, 3]))
    reordered = reorder(samples, torch.tensor([4, 1, 3, 2])).frames.flatten(1)
    assert reordered.tolist() == [[2, 4, 3, 1], [2, 3, 1, 0]]
    bright_second = samples._replace(frames=torch.where(frames == 2, 255, 0).to(torch.uint8))
    found = accuracy_by_order(FirstPixel(), bright_second)
    assert (found["in order"], found["reversed"]) == (1, 0.5)  # in the clip of three frames it stays the second


def test_more_pieces_than_rows_of_a_table_are_a_map_of_the_image():
    correct = torch.ones(16, 5, dtype=torch.long)
    correct[6] = 0  # piece 7: the second row, the third column
    figure = draw_occluded_pieces(correct, torch.zeros(5, dtype=torch.long), (4, 4), "0")
    means = figure.axes[0].images[0].get_array()
    assert means.shape == (4, 4)
    assert means[1, 2] == 0
    assert (means == 100).sum() == 15

import torch

from quadrant_lstm.dashboard.pictures.orderings import draw_orderings


def test_each_frame_is_labelled_with_its_quadrants():
    figure = draw_orderings(torch.zeros(1, 28, 28, dtype=torch.uint8))
    steps = [[text.get_text() for text in axes.texts] for axes in figure.axes if axes.get_title().startswith("step")]
    assert steps == [["1", "4", "1", "4"], ["2", "3", "3", "2"], ["3", "2", "2", "3"], ["4", "1", "4", "1"]]

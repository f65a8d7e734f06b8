import torch

from quadrant_lstm.dashboard.pictures.confusion import draw_confusion


def test_a_confusion_matrix_shows_its_counts():
    figure = draw_confusion(torch.tensor([[5, 1], [0, 4]]), "ab")
    assert {text.get_text() for text in figure.axes[0].texts} == {"5", "1", "4"}
    assert figure.axes[0].get_title() == "9 of 10 test samples correct"

import torch

from quadrant_lstm.dashboard.pictures.predictions import draw_confusion


def test_a_confusion_matrix_shows_its_counts():
    figure = draw_confusion(torch.tensor([[5, 1], [0, 4]]), "ab")
    counts = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert counts == {(0, 0): "5", (1, 0): "1", (1, 1): "4"}  # by column and row
    assert figure.axes[0].get_title() == "9 of 10 test samples correct"

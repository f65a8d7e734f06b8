import torch
from matplotlib.colors import to_hex

from quadrant_lstm.dashboard.pictures.predictions import draw_belief
from quadrant_lstm.plotting import CORRECT, GREY, WRONG


def test_the_bar_of_the_true_class_is_blue_and_that_of_a_wrong_prediction_red():
    frames, logits = torch.zeros(3, 1, 16, 4, dtype=torch.uint8), 5.0 * torch.eye(3)
    expected = {
        0: [CORRECT, GREY, GREY, CORRECT, WRONG, GREY, CORRECT, GREY, WRONG],
        2: [WRONG, GREY, CORRECT, GREY, WRONG, CORRECT, GREY, GREY, CORRECT],
    }
    for label, colours in expected.items():
        (axes,) = draw_belief(frames, logits, label, "012", "some").axes
        tick_labels = [text.get_text() for text in axes.get_xticklabels()]
        assert tick_labels == ["step 1\n0: 99%", "step 2\n1: 99%", "step 3\n2: 99%"]
        assert [to_hex(bar.get_facecolor()) for bar in axes.patches if bar.get_fill()] == colours

import torch

from quadrant_lstm.dashboard.pictures.mistakes import draw_mistakes


def test_mistakes_are_drawn_with_class_prediction_and_confidence():
    labels = torch.tensor([0, 1, 2, 1])
    logits = torch.tensor([[9.0, 0, 0], [0.1, 0, 0], [0, 9, 0], [0, 9, 0]])
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 1, 8, 8)
    (axes,) = draw_mistakes(images, labels, logits).axes
    assert [text.get_text() for text in axes.texts] == ["2 as 1\n100 %", "1 as 0\n36 %"]  # the most confident first
    page = axes.images[0].get_array()
    assert (page[0, 5], page[0, 19]) == (255 - 2, 255 - 1)  # images of 8 pixels, with gaps of 6 pixels
    assert axes.get_title() == "2 of 4 misclassified"
    (axes,) = draw_mistakes(images, labels, torch.eye(3)[labels]).axes
    assert axes.get_title() == "0 of 4 misclassified"
    (axes,) = draw_mistakes(images.repeat(30, 1, 1, 1), labels.repeat(30), logits.repeat(30, 1), start=40).axes
    assert axes.get_title() == "60 of 120 misclassified: 41 to 60, most confident first"
    assert len(axes.texts) == 20

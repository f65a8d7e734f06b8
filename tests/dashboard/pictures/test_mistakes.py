import torch

from quadrant_lstm.dashboard.pictures.predictions import columns_for, draw_mistakes, most_confident_mistakes


def page(images, labels, logits, number=1):
    mistakes = most_confident_mistakes(logits, labels)
    (axes,) = draw_mistakes(images.__getitem__, mistakes, labels, logits, "012", number).axes
    return axes


def test_mistakes_are_drawn_with_class_prediction_and_confidence():
    labels = torch.tensor([0, 1, 2, 1])
    logits = torch.tensor([[9.0, 0, 0], [0.1, 0, 0], [0, 9, 0], [0, 9, 0]])
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 1, 28, 28)
    axes = page(images, labels, logits)
    assert [text.get_text() for text in axes.texts] == ["2 as 1\n100 %", "1 as 0\n36 %"]  # the most confident first
    pixels = axes.images[0].get_array()
    assert (pixels[0, 5], pixels[0, 39]) == (255 - 2, 255 - 1)  # images of 28 pixels, with gaps of 6 pixels
    assert axes.get_title() == "2 of 4 misclassified"
    assert page(images, labels, torch.eye(3)[labels]).get_title() == "0 of 4 misclassified"
    axes = page(images.repeat(30, 1, 1, 1), labels.repeat(30), logits.repeat(30, 1), number=2)
    assert axes.get_title() == "60 of 120 misclassified: 41 to 60, most confident first"
    assert len(axes.texts) == 20


def test_pictures_keep_their_shape():
    assert columns_for(28, 28) == 10
    assert columns_for(28, 3 * 28) == 3

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from quadrant_lstm.dashboard.pictures.data import draw_augmentation, draw_orderings


def test_the_unchanged_image_comes_first_in_each_row():
    picture = draw_augmentation(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), lambda images: images + 255.0)
    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[-16]  # in the last row of images
    assert pixels[10, 0] == 0  # unchanged
    assert (pixels[350 // 11 + 16 :: 350 // 11, 0] == 255).all()


def test_each_frame_is_labelled_with_its_quadrants():
    figure = draw_orderings(torch.zeros(1, 28, 28, dtype=torch.uint8))
    steps = [[text.get_text() for text in axes.texts] for axes in figure.axes if axes.get_title().startswith("step")]
    assert steps == [["1", "4", "1", "4"], ["2", "3", "3", "2"], ["3", "2", "2", "3"], ["4", "1", "4", "1"]]

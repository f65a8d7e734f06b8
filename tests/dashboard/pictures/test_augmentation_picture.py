import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from quadrant_lstm.dashboard.pictures.augmentation import draw_augmentation


def test_the_unchanged_image_comes_first_in_each_row():
    picture = draw_augmentation(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), lambda images: images + 255.0)
    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[-16]  # in the last row of images
    assert pixels[10, 0] == 0  # unchanged
    assert (pixels[350 // 11 + 16 :: 350 // 11, 0] == 255).all()

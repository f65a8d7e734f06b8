import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from quadrant_lstm.dashboard.pictures.data import draw_augmentation, draw_orderings, shown_frames


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


def test_on_a_larger_grid_orderings_are_paths_over_the_image():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    figure = draw_orderings(image, ["columns", "reversed-rows"], (4, 4))
    columns, backwards, _, _, *frames = figure.axes  # room for four paths
    assert (columns.get_title(), backwards.get_title()) == ("columns", "reversed-rows")
    xs, ys = columns.lines[0].get_data()  # the centres of pieces of 7 x 7 pixels
    assert (list(xs[:5]), list(ys[:5])) == ([3, 3, 3, 3, 10], [3, 10, 17, 24, 3])
    assert [axes.get_title() for axes in frames] == [f"step {step + 1}" for step in shown_frames(16)]

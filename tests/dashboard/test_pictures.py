"""What the pictures of a run show, and what they are computed from."""

import warnings
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from torch import nn

from quadrant_lstm import sequences
from quadrant_lstm.dashboard import gallery
from quadrant_lstm.dashboard.dashboard import Dashboard
from quadrant_lstm.dashboard.pictures import data as of_data
from quadrant_lstm.dashboard.pictures import network as of_network
from quadrant_lstm.dashboard.pictures import predictions as of_predictions
from quadrant_lstm.dashboard.report import AFTER_EACH_STEP, HISTORIES, by_section, draw_history, histories
from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.data.orderings import QUADRANTS
from quadrant_lstm.model.encoder import Backbone
from quadrant_lstm.plotting import CORRECT, GREY, WRONG, as_png
from tests.clips import clips_in, noise_clip
from tests.networks import clip_network, small_network, trainer
from tests.series import series_in, write_series_folder


def texts_of(labels) -> list[str]:
    return [label.get_text() for label in labels]


# Data


def test_each_frame_is_labelled_with_its_quadrants():
    figure = of_data.draw_orderings(torch.zeros(1, 28, 28, dtype=torch.uint8))
    steps = [texts_of(axes.texts) for axes in figure.axes if axes.get_title().startswith("step")]
    assert steps == [["1", "4", "1", "4"], ["2", "3", "3", "2"], ["3", "2", "2", "3"], ["4", "1", "4", "1"]]


def test_on_a_larger_grid_orderings_are_paths_over_the_image():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    columns, backwards, *frames = of_data.draw_orderings(image, ["columns", "reversed-rows"], (4, 4)).axes
    assert (columns.get_title(), backwards.get_title()) == ("columns", "reversed-rows")
    xs, ys = columns.lines[0].get_data()  # the centres of pieces of 7 x 7 pixels
    assert (list(xs[:5]), list(ys[:5])) == ([3, 3, 3, 3, 10], [3, 10, 17, 24, 3])
    assert [axes.get_title() for axes in frames] == [f"step {step + 1}" for step in of_data.shown_frames(16)]


# Predictions


def test_the_bar_of_the_true_class_is_blue_and_that_of_a_wrong_prediction_red():
    frames, logits = torch.zeros(3, 1, 16, 4, dtype=torch.uint8), 5.0 * torch.eye(3)
    expected = {
        0: [CORRECT, GREY, GREY, CORRECT, WRONG, GREY, CORRECT, GREY, WRONG],
        2: [WRONG, GREY, CORRECT, GREY, WRONG, CORRECT, GREY, GREY, CORRECT],
    }
    for label, colours in expected.items():
        (axes,) = of_predictions.draw_belief(frames, logits, label, "012", "some").axes
        assert texts_of(axes.get_xticklabels()) == ["step 1\n0: 99%", "step 2\n1: 99%", "step 3\n2: 99%"]
        assert [to_hex(bar.get_facecolor()) for bar in axes.patches if bar.get_fill()] == colours


def test_the_frame_of_a_clip_of_one_keeps_its_proportions():
    frame = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    picture, axes = of_predictions.draw_belief(frame, torch.eye(3)[:1], 0, "012", "some").axes
    assert (picture.get_aspect(), picture.get_title()) == (1.0, "step 1")
    assert all(tick.is_integer() for tick in axes.get_xticks())


def test_calibration_error_is_the_distance_between_confidence_and_accuracy():
    confidences = torch.tensor([0.9] * 10 + [0.6] * 10)
    logits = torch.stack([confidences, 1 - confidences], 1).log()
    labels = torch.tensor([0] * 7 + [1] * 3 + [0] * 6 + [1] * 4)  # 70 % correct at 90 %, and 60 % at 60 %
    above, below = of_predictions.draw_calibration(logits, labels).axes
    assert above.get_title() == "expected calibration error 10.00 %"
    assert [round(bar.get_height(), 3) for bar in above.patches if bar.get_height()] == [0.6, 0.7]
    assert [bar.get_height() for bar in below.patches if bar.get_height()] == [10, 10]


def test_a_confusion_matrix_and_the_bars_of_its_classes_show_their_counts():
    matrix = torch.tensor([[5, 1], [0, 4]])
    (axes,) = of_predictions.draw_confusion(matrix, "ab").axes
    counts = {text.get_position(): text.get_text() for text in axes.texts if text.get_text()}
    assert counts == {(0, 0): "5", (1, 0): "1", (1, 1): "4"}  # by column and row
    assert axes.get_title() == "9 of 10 test samples correct"
    (axes,) = of_predictions.draw_classes(matrix, "ab").axes
    assert texts_of(axes.texts) == ["16.7\n1", "0.0\n0"]
    (axes,) = of_predictions.draw_classes(torch.tensor([[5, 1], [0, 0]]), "ab").axes
    assert texts_of(axes.texts) == ["16.7\n1", "no samples"]
    assert of_predictions.draw_classes(torch.eye(2).long(), "ab").axes[0].get_ylim() == (0, 1)


def test_mistakes_are_drawn_with_class_prediction_and_confidence():
    logits = torch.tensor([[9.0, 0, 0], [0.1, 0, 0], [0, 9, 0], [0, 9, 0]])
    labels = torch.tensor([0, 1, 2, 1])
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 1, 28, 28)
    shown = of_predictions.most_confident_mistakes(logits, labels)
    axes = of_predictions.draw_mistakes(images[shown], labels[shown], logits[shown], "012", "some").axes[0]
    assert texts_of(axes.texts) == ["2 as 1\n100 %", "1 as 0\n36 %"]  # the most confident first
    pixels = axes.images[0].get_array()
    assert (pixels[0, 5], pixels[0, 39]) == (255 - 2, 255 - 1)  # images of 28 pixels, with gaps of 6 pixels
    assert of_predictions.columns_for(28, 28) == 10
    assert of_predictions.columns_for(28, 3 * 28) == 3  # pictures keep their shape


@pytest.mark.parametrize(
    ("of_all", "title"),
    [(0, None), (8, "8 of 8 misclassified"), (16, "8 of 8 misclassified by the first process")],
)
def test_mistakes_are_drawn_where_there_are_some_and_their_title_says_whose(of_all, title, tmp_path):
    data, indices = series_in(write_series_folder(tmp_path)), torch.arange(8)
    labels = data.test_samples(indices).labels
    logits = torch.eye(2)[1 - labels if of_all else labels][:, None].expand(-1, 3, -1)
    tested = gallery.TestOutputs(indices, logits, labels, torch.tensor([[0, of_all // 2], [of_all // 2, 0]]))
    pictures = dict((*gallery.prediction_pictures(data, tested), *gallery.belief_pictures(data, tested)))
    assert "belief/example_1" in pictures
    assert bool([tag for tag in pictures if "mistake" in tag]) == bool(of_all)
    if of_all:
        figure = pictures["test/mistakes"]
        assert figure.axes[0].get_title() == title or figure.get_suptitle() == title


# The inside of a network


def test_feature_maps_are_those_of_the_frame_with_the_largest_sum():
    torch.manual_seed(0)
    network, image = small_network(), torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    image[:, :, :8, 8:] = 200  # quadrant 2, which frame 2 contains twice
    frames = sequences(image)
    maps = of_network.feature_maps(network, frames)
    torch.testing.assert_close(maps["input"] * 255, frames[0, 1].float())
    torch.testing.assert_close(maps["conv1"], network.encoder.module.conv1(frames[0, 1:2] / 255).relu()[0])
    assert maps["conv2"].shape == (3, 28, 4)
    pictures = {name: figure.axes for name, figure in of_network.draw_features(network, frames).items()}
    assert list(pictures) == ["filters", "conv1", "conv2"]
    for frame, _ in pictures.values():
        np.testing.assert_allclose(255 * frame.images[0].get_array(), frames[0, 1, 0], rtol=1e-6)


def test_the_input_of_an_encoder_that_normalizes_is_shown_in_its_own_colours():
    encoder = partial(Backbone, name="shufflenet_v2_x0_5", weights=None, frozen=True, lr_factor=1.0, size=None)
    frames = torch.randint(256, (1, 2, 3, 40, 40), dtype=torch.uint8)
    network = clip_network((3, 40, 40), encoder=encoder)
    network.encoder.module.mean, network.encoder.module.std = torch.tensor([[[0.5]]]), torch.tensor([[[0.2]]])
    shown = of_network.feature_maps(network, frames)["input"]
    assert min((shown * 255 - frame).abs().max() for frame in frames[0].float()) < 1e-3


def test_a_mosaic_is_about_twice_as_wide_as_high():
    page = of_network.mosaic(np.arange(1.0, 7)[:, None, None] * np.ones((6, 2, 3)))
    assert page.shape == (5, 11)  # two rows of three, with a pixel between
    assert (page[:2, :3] == 1).all()
    assert np.isnan(page[2]).all()
    assert of_network.mosaic(np.ones((3, 50, 2))).shape == (50, 8)  # too narrow even in one row
    for shape, per_row in {(3, 3): 8, (54, 12): 16, (24, 32): 8}.items():  # the rows of 32 maps are full
        page = of_network.mosaic(np.ones((32, *shape)))
        assert page.shape == (32 // per_row * (shape[0] + 1) - 1, per_row * (shape[1] + 1) - 1)
        assert not np.isnan(page[-1, -1])


def test_gates_are_those_of_pytorch():
    torch.manual_seed(0)
    network = small_network()
    frames = sequences(torch.randint(0, 256, (1, 1, 16, 16), dtype=torch.uint8))
    shown = {}
    for axes in of_network.draw_gates(network, frames, "some").axes:
        shown[axes.get_title().partition(",")[0]] = torch.from_numpy(np.asarray(axes.images[0].get_array()))
    cell = nn.LSTMCell(network.recurrent.input_size, 5)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in network.recurrent.state_dict().items()})
    state, maps = None, network.encoder(frames / 255)[0].flatten(1)
    for step in range(4):
        state = cell(maps[step : step + 1], state)
        torch.testing.assert_close(shown["output"][step], state[0][0].detach())
        torch.testing.assert_close(shown["cell state"][step], state[1][0].detach())
    torch.testing.assert_close(shown["cell state"][0], shown["input gate"][0] * shown["cell candidate"][0])
    torch.testing.assert_close(shown["output"], shown["output gate"] * shown["cell state"].tanh())


# Occlusion


class FirstPixel(nn.Module):
    """Predicts class 1 if the first pixel of the second frame is bright."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(1))

    def forward(self, frames, lengths=None):
        pixel = self.weights * frames[:, 1, 0, 0, 0]
        return torch.stack([1 - pixel, pixel], 1)


def test_samples_are_evenly_spaced_because_files_are_sorted_by_class():
    assert gallery.spread(10, 4).tolist() == [0, 3, 6, 9]
    assert gallery.spread(3, 4).tolist() == [0, 1, 2]


def test_only_occluding_what_the_network_uses_costs_accuracy():
    images = torch.full((6, 1, 4, 4), 255, dtype=torch.uint8)
    labels = torch.ones(6, dtype=torch.long)
    orderings = [(1, 3, 2, 4), (4, 3, 2, 1)]
    by_piece = of_network.correct_by_occluded_piece(FirstPixel(), images, labels, orderings, QUADRANTS)
    assert by_piece.float().mean(1).tolist() == [1, 1, 0, 1]
    by_ordering = of_network.correct_by_occluded_ordering(FirstPixel(), images, labels, orderings, QUADRANTS)
    assert by_ordering.float().mean(1).tolist() == [0, 1]
    (axes,) = of_network.draw_occluded_pieces(by_piece, labels, QUADRANTS, "012").axes
    assert texts_of(axes.get_yticklabels())[2] == "3: 0.0 %"
    unoccluded = torch.tensor([1, 1, 1, 0, 0, 0])
    (axes,) = of_network.draw_occluded_orderings(by_ordering, orderings, QUADRANTS, unoccluded).axes
    assert texts_of(axes.get_yticklabels()) == ["none", "1324", "4321"]
    assert texts_of(axes.texts) == ["50.0", "0.0", "100.0"]
    frames = torch.tensor([0, 255, 0], dtype=torch.uint8)[None, :, None, None, None].expand(4, 3, 1, 2, 2)
    samples = Batch(frames, torch.ones(4, dtype=torch.long))
    assert of_network.accuracy_by_occluded_step(FirstPixel(), samples) == {1: 1, 2: 0, 3: 1}


@pytest.mark.parametrize("recurrent", ["lstm", "concat"])
def test_features_that_are_computed_once_have_the_accuracies_of_frames(recurrent):
    torch.manual_seed(0)
    network = clip_network((3, 8, 8), recurrent=recurrent, differences=True)
    for weights in network.parameters():
        nn.init.normal_(weights)  # else it has one prediction for all
    frames = torch.randint(256, (30, 4, 3, 8, 8), dtype=torch.uint8)
    samples = Batch(frames, torch.zeros(30, dtype=torch.long), torch.arange(30) % 4 + 1)
    samples = samples._replace(labels=network(frames / 255, samples.lengths).argmax(1))  # all are right
    num_frames = []
    network.encoder.module[0].register_forward_hook(lambda _, inputs, __: num_frames.append(len(inputs[0])))
    once = of_network.encoded(network, samples)
    found = of_network.accuracy_by_occluded_step(network, once), of_network.accuracy_by_order(network, once)
    assert sum(num_frames) == samples.lengths.sum() + 2 + 1  # the first frame, to see how large they are; a black one
    of_frames = of_network.accuracy_by_occluded_step(network, samples), of_network.accuracy_by_order(network, samples)
    assert found == of_frames
    assert 0 < min(found[0].values()) < max(found[0].values()) < 1


def test_real_frames_are_reordered_and_padding_stays_at_the_end():
    frames = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 0]], dtype=torch.uint8)[:, :, None, None, None]
    samples = Batch(frames, torch.ones(2, dtype=torch.long), torch.tensor([4, 3]))
    reordered = of_network.reorder(samples, torch.tensor([4, 1, 3, 2])).frames.flatten(1)
    assert reordered.tolist() == [[2, 4, 3, 1], [2, 3, 1, 0]]
    bright_second = samples._replace(frames=torch.where(frames == 2, 255, 0).to(torch.uint8))
    found = of_network.accuracy_by_order(FirstPixel(), bright_second)
    assert (found["in order"], found["reversed"]) == (1, 0.5)  # in the clip of three frames it stays the second


def test_a_class_without_samples_has_no_accuracy():
    labels = torch.tensor([0, 0, 2])
    (axes,) = of_network.draw_occluded_pieces(torch.ones(4, 3, dtype=torch.long), labels, QUADRANTS, "abc").axes
    assert texts_of(axes.texts) == ["100", "", "100"] * 4


def test_more_pieces_than_rows_of_a_table_are_a_map_of_the_image():
    correct = torch.ones(16, 5, dtype=torch.long)
    correct[6] = 0  # piece 7: the second row, the third column
    figure = of_network.draw_occluded_pieces(correct, torch.zeros(5, dtype=torch.long), (4, 4), "0")
    means = figure.axes[0].images[0].get_array()
    assert (means.shape, means[1, 2], (means == 100).sum()) == ((4, 4), 0, 15)


# The report


def test_the_history_has_a_curve_for_each_column_and_the_tested_epoch():
    rows = [{"epoch": str(epoch), "train/loss": str(1 / epoch), "val/loss": ""} for epoch in (1, 2, 3)]
    loss, accuracy = (draw_history(curves, rows, 2).axes[0] for curves in HISTORIES.values())
    curve, best = loss.lines
    assert list(curve.get_ydata()) == [1, 1 / 2, 1 / 3]
    assert best.get_xdata()[0] == 2
    assert len(accuracy.lines) == 1


def test_the_history_of_the_steps_needs_validation():
    names = [f"val/accuracy_step_{step}" for step in range(1, 17)]
    assert AFTER_EACH_STEP not in histories([{"epoch": "1"} | dict.fromkeys(names, "")])
    rows = [{"epoch": str(epoch)} | dict.fromkeys(names, "0.5") for epoch in (1, 2)]
    (legend,) = draw_history(histories(rows)[AFTER_EACH_STEP], rows, 2).legends
    assert texts_of(legend.get_texts()) == [*(f"step {step}" for step in range(2, 17, 2)), "tested epoch"]


def test_a_picture_without_a_caption_is_shown_by_its_tag():
    sections = by_section({"mine/new": b"1", "inside/conv1": b"2"})
    caption = "Output of conv1 for the input on the left: white is 0, black is the largest value of each map."
    assert sections == {"Inside the network": ("", [(caption, b"2")]), "Other pictures": ("", [("mine/new", b"1")])}


# Classes with any names


@pytest.mark.filterwarnings("error")
def test_all_pictures_show_classes_of_any_name(tmp_path, monkeypatch):
    names = ["$5_$10", "a$_$b", "\u732b\U000e1000"]  # the last one has a character that no font has
    for folder in (tmp_path / half / name for half in ("train", "test") for name in names):
        folder.mkdir(parents=True)
        for number in range(2):
            np.save(folder / f"{number}.npy", noise_clip(3, seed=number))
    clips = clips_in(tmp_path)
    assert list(clips.spec.class_names) == names
    tested = gallery.TestOutputs(torch.arange(6), torch.zeros(6, 3, 3), torch.arange(6) // 2, torch.ones(3, 3).long())
    network = clip_network((3, 12, 16), num_steps=3)
    monkeypatch.setattr(gallery, "NUM_BELIEFS", 1)
    pictures = dict(gallery.data_pictures(clips)) | dict(gallery.prediction_pictures(clips, tested))
    pictures |= dict(gallery.network_pictures(network, clips, tested))
    for figure in pictures.values():
        as_png(figure)
    axes = pictures["test/confusion"].axes[0]
    assert texts_of(axes.get_xticklabels()) == ["$5_$10", "a$_$b", "#3"]
    assert texts_of(pictures["test/mistakes"].axes[0].texts)[0] == "a$_$b as $5_$10\n33 %"
    with warnings.catch_warnings(action="ignore"):  # Lightning's about SLURM
        fitting, dashboard = trainer(), Dashboard()
    fitting.datamodule = clips
    dashboard.on_fit_start(fitting, SimpleNamespace(network=network))
    assert dashboard.numbered == {"#3": names[2]}

import base64
import io
import json
import re
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata
from torch import nn

from quadrant_lstm import CNNLSTM, ORDERINGS, sequences
from quadrant_lstm.dashboard.dashboard import Dashboard
from quadrant_lstm.dashboard.pictures.augmentation import draw_augmentation
from quadrant_lstm.dashboard.pictures.belief import draw_belief
from quadrant_lstm.dashboard.pictures.calibration import draw_calibration, expected_calibration_error
from quadrant_lstm.dashboard.pictures.confusion import draw_confusion
from quadrant_lstm.dashboard.pictures.features import draw_features, feature_maps, mosaic
from quadrant_lstm.dashboard.pictures.gates import draw_gates
from quadrant_lstm.dashboard.pictures.history import HISTORIES, draw_history
from quadrant_lstm.dashboard.pictures.mistakes import draw_mistakes
from quadrant_lstm.dashboard.pictures.occlusion import (
    draw_occluded_orderings,
    draw_occluded_quadrants,
    with_occluded_orderings,
    with_occluded_quadrants,
)
from quadrant_lstm.dashboard.pictures.orderings import draw_orderings
from quadrant_lstm.dashboard.report import SECTIONS
from quadrant_lstm.dashboard.tensorboard import TensorBoard
from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.plotting import GREY, RIGHT, WRONG
from tests.folders import TINY, run_folder, write_idx_folder
from tests.networks import CONSTANT, trainer
from tests.scripts import script

PICTURES = ("data/orderings", "test/confusion", "test/classes", "test/calibration", "test/mistakes_1",
            "test/occluded_quadrant", "test/occluded_ordering", "belief/image_1", "belief/image_6", "belief/mistake_1",
            "inside/filters", "inside/conv1", "inside/gates")  # fmt: skip


@pytest.fixture(scope="module")
def events(finished_run):
    accumulator = EventAccumulator(str(finished_run), size_guidance={"images": 0, "scalars": 0})
    return accumulator.Reload()


def test_scalars_are_named_alike_and_no_others_are_there(events):
    assert set(events.Tags()["scalars"]) == {
        "train/batch_loss",
        "train/gradient_norm",
        "train/weight_norm",
        "train/epoch_seconds",
        "train/loss",
        "train/accuracy",
        "train/learning_rate",
        "train/samples_per_second",
        "val/loss",
        "val/accuracy",
        "val/best_accuracy",
        "test/loss",
        "test/accuracy",
        *(f"{stage}/accuracy_step_{step}" for stage in ("val", "test") for step in range(1, 5)),
    }
    assert [event.value for event in events.Scalars("train/learning_rate")] == pytest.approx([0.001] * 3)


def test_hyperparameters_stand_with_the_final_metrics(events, finished_run):
    data = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    parameters = metadata.parse_session_start_info_plugin_data(data).hparams
    assert parameters["model.lstm_units"].number_value == 5
    assert parameters["optimizer.lr"].number_value == 0.001
    assert parameters["model.filters"].string_value == "[4]"
    assert not [name for name in parameters if "augmentation" in name or name == "data.seed"]  # off; follows seed
    experiment = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    names = [info.name.tag for info in metadata.parse_experiment_plugin_data(experiment).metric_infos]
    assert names == ["test/accuracy", "test/loss", "val/best_accuracy"]
    results = json.loads((finished_run / "results.json").read_text())
    assert events.Scalars("test/accuracy")[-1].value == pytest.approx(results["test/accuracy"])
    assert events.Scalars("val/best_accuracy")[-1].value == pytest.approx(results["val/accuracy"])


def test_curves_have_a_point_an_epoch_and_no_step_goes_back(events):
    # TensorBoard drops what comes before a step that goes back
    for tag in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert [event.step for event in events.Scalars(tag)] == [9, 19, 29]
    for tag in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(tag)]
        assert steps == sorted(steps)


@pytest.mark.parametrize("tag", PICTURES)
def test_pictures_are_there_and_not_blank(events, tag):
    (event,) = events.Images(tag)
    pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("L"))
    assert pixels.shape == (210, 350)
    assert pixels.std() > 10


def test_a_frame_is_labelled_with_the_quadrants_it_stacks():
    figure = draw_orderings(torch.zeros(1, 28, 28, dtype=torch.uint8), ORDERINGS)
    steps = [[text.get_text() for text in axes.texts] for axes in figure.axes if axes.get_title().startswith("step")]
    assert steps == [["1", "4", "1", "4"], ["2", "3", "3", "2"], ["3", "2", "2", "3"], ["4", "1", "4", "1"]]


def test_the_tabs_of_their_own_have_data(events, finished_run):
    nodes = events.Graph().node
    assert {node.name.partition("/")[0] for node in nodes} >= {  # not all in one box
        "encoder", "flatten", "recurrent", "last_step", "dense", "head"
    }  # fmt: skip
    assert not [name for node in nodes for name in (node.name, *node.input) if name.startswith("CNNLSTM/")]
    text = {tag: events.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()
            for tag in ("run/network", "run/config")}  # fmt: skip
    assert "    encoder.conv1  Conv2d" in text["run/network"]
    assert "    seed: 1\n" in text["run/config"]
    curves = [tag for tag in events.Tags()["tensors"] if tag.startswith("precision_recall/")]
    assert curves == [f"precision_recall/{label}" for label in range(3)]
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert charts["accuracy after each step"] == [f"val/accuracy_step_{step}" for step in range(1, 5)]
    scalars = events.Tags()["scalars"]
    for curves in charts.values():  # a curve each, not all that begin alike
        assert all(len([tag for tag in scalars if re.search(curve, tag)]) == 1 for curve in curves)
    (states,) = finished_run.glob("*/last_state")
    assert len((states / "tensors.tsv").read_text().splitlines()) == 70
    labels = [int(label) for label in (states / "metadata.tsv").read_text().split()]
    assert labels == [number % 3 for number in range(70)]
    assert Image.open(states / "sprite.png").size == (9 * 8, 9 * 8)
    assert "last_state" in (finished_run / "projector_config.pbtxt").read_text()


def test_the_report_holds_the_result_and_all_pictures_with_captions(finished_run, events):
    page = (finished_run / "report.html").read_text()
    results = json.loads((finished_run / "results.json").read_text())
    assert f"<td>Test accuracy<td>{100 * results['test/accuracy']:.2f} %" in page
    assert f"<td>Best epoch<td>{results['best_epoch']} of 3" in page
    headings = re.findall("<h2>(.*)</h2>", page)
    assert headings == ["Result", "Curves", *(title for title in SECTIONS), "Network", "Config"]
    shown = re.findall(r'alt="([^"]+)" src="data:image/png;base64,([^"]+)"', page)
    captions = [caption for caption, _ in shown]
    assert len(captions) == len(set(captions)) == len(HISTORIES) + len(events.Tags()["images"])
    assert "Mistake 1: the probability of each class after each step" in captions
    assert not [caption for caption in captions if "/" in caption]  # words, not tags
    assert all(Image.open(io.BytesIO(base64.b64decode(data))).size > (300, 200) for _, data in shown)
    assert "encoder.conv1  Conv2d" in page
    assert "lstm_units: 5" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # nothing is fetched


def test_the_history_has_a_curve_for_each_column():
    rows = [{"epoch": str(epoch), "train/loss": str(1 / epoch), "val/loss": ""} for epoch in (1, 2, 3)]
    loss, accuracy, steps = (draw_history(title, rows, 2).axes[0] for title in HISTORIES)
    curve, best = loss.lines
    assert list(curve.get_ydata()) == [1, 1 / 2, 1 / 3]
    assert best.get_xdata()[0] == 2
    assert len(accuracy.lines) == len(steps.lines) == 1


class LogitsOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4 * 4 * 4 * 4, 3)

    def forward(self, frames):
        return self.linear(frames.flatten(1))


def test_a_network_that_gives_logits_alone_is_shown_without_its_inside(idx_folder, tmp_path):
    data = SequenceDataModule("idx", str(idx_folder), ORDERINGS, 40, 0, 16, 1, Augmentation())
    dashboard, logger = Dashboard(), TensorBoard(str(tmp_path))
    classifier = Classifier(LogitsOnly(), partial(torch.optim.SGD, lr=0.1), CONSTANT, data.frame_shape, 3)
    training = trainer(logger, max_epochs=1, log_every_n_steps=5, callbacks=[dashboard])
    training.fit(classifier, datamodule=data)
    training.test(classifier, datamodule=data, verbose=False)
    assert {"test/confusion", "test/occluded_quadrant", "test/occluded_ordering"} <= set(dashboard.pictures)
    assert not [name for name in dashboard.pictures if name.startswith(("inside/", "belief/"))]


def test_a_confusion_matrix_shows_its_counts():
    figure = draw_confusion(torch.tensor([[5, 1], [0, 4]]))
    assert {text.get_text() for text in figure.axes[0].texts} == {"5", "1", "4"}
    assert figure.axes[0].get_title() == "test images, 9 of 10 right"


def test_mistakes_are_drawn_with_what_they_are_and_were_taken_for():
    labels = torch.tensor([0, 1, 2, 1])
    logits = torch.tensor([[9.0, 0, 0], [0.1, 0, 0], [0, 9, 0], [0, 9, 0]])
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 1, 8, 8)
    (axes,) = draw_mistakes(images, labels, logits).axes
    assert [text.get_text() for text in axes.texts] == ["2 as 1\n100 %", "1 as 0\n36 %"]  # the surest first
    page = axes.images[0].get_array()
    assert (page[0, 5], page[0, 19]) == (255 - 2, 255 - 1)  # a digit is 8 wide, and 6 lie between
    assert axes.get_title() == "2 of 4 wrong"
    (axes,) = draw_mistakes(images, labels, torch.eye(3)[labels]).axes
    assert axes.get_title() == "0 of 4 wrong"
    (axes,) = draw_mistakes(images.repeat(30, 1, 1, 1), labels.repeat(30), logits.repeat(30, 1), start=40).axes
    assert axes.get_title() == "60 of 120 wrong: 41 to 60, the surest first"
    assert len(axes.texts) == 20


def test_the_bar_of_what_an_image_is_is_blue_and_a_likelier_one_red():
    frames, logits = torch.zeros(3, 1, 16, 4, dtype=torch.uint8), 5.0 * torch.eye(3)
    expected = {
        0: [RIGHT, GREY, GREY, RIGHT, WRONG, GREY, RIGHT, GREY, WRONG],
        2: [WRONG, GREY, RIGHT, GREY, WRONG, RIGHT, GREY, GREY, RIGHT],
    }
    for label, colours in expected.items():
        (axes,) = draw_belief(frames, logits, label, "some").axes
        said = [text.get_text() for text in axes.get_xticklabels()]
        assert said == ["step 1\n0: 99%", "step 2\n1: 99%", "step 3\n2: 99%"]
        assert [to_hex(bar.get_facecolor()) for bar in axes.patches if bar.get_fill()] == colours


def test_calibration_is_the_distance_of_sure_and_right():
    sure = torch.tensor([0.9] * 10 + [0.6] * 10)
    logits = torch.stack([sure, 1 - sure], 1).log()
    labels = torch.tensor([0] * 7 + [1] * 3 + [0] * 6 + [1] * 4)  # 90 % is right in 70, 60 % in 60
    assert expected_calibration_error(logits, labels) == pytest.approx(0.1, abs=1e-4)
    above, below = draw_calibration(logits, labels).axes
    assert [round(bar.get_height(), 3) for bar in above.patches if bar.get_height()] == [0.6, 0.7]
    assert [bar.get_height() for bar in below.patches if bar.get_height()] == [10, 10]


class Corner(nn.Module):
    """Says 1 where the first pixel of the first ordering's second step is bright."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(1))

    def forward(self, frames):
        seen = self.weights * frames[:, 1, 0, 0, 0]
        return torch.stack([1 - seen, seen], 1)


def test_what_is_hidden_is_what_it_costs():
    images = torch.full((6, 1, 4, 4), 255, dtype=torch.uint8)
    labels = torch.ones(6, dtype=torch.long)
    orderings = [(1, 3, 2, 4), (4, 3, 2, 1)]
    quadrants = with_occluded_quadrants(Corner(), images, labels, orderings)
    assert quadrants.float().mean(1).tolist() == [1, 1, 0, 1]
    without = with_occluded_orderings(Corner(), images, labels, orderings)
    assert without.float().mean(1).tolist() == [0, 1]
    (axes,) = draw_occluded_quadrants(quadrants, labels).axes
    assert [label.get_text() for label in axes.get_yticklabels()][2] == "3: 0.0 %"
    (axes,) = draw_occluded_orderings(without, orderings, torch.tensor([1, 1, 1, 0, 0, 0])).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["nothing", "1324", "4321"]
    assert [text.get_text() for text in axes.texts] == ["50.0", "0.0", "100.0"]


def small_network():
    return CNNLSTM((1, 32, 8), 3, ORDERINGS, [2, 3], 3, 2, 0.25, "lstm", 5, 4, shared_tiles=True).eval()


def test_feature_maps_are_those_of_the_frame_with_the_most_in_it():
    torch.manual_seed(0)
    network, image = small_network(), torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    image[:, :, :8, 8:] = 200  # quadrant 2, of which frame 2 has two
    frames = sequences(image)
    maps = feature_maps(network, frames)
    torch.testing.assert_close(maps["input"] * 255, frames[0, 1].float())
    torch.testing.assert_close(maps["conv1"], network.encoder.module.conv1(frames[0, 1:2] / 255).relu()[0])
    assert maps["conv2"].shape == (3, 28, 4)
    pictures = {name: figure.axes for name, figure in draw_features(network, frames).items()}
    assert {name: maps.get_title() for name, (_, maps) in pictures.items()} == {
        "filters": "the 2 filters of the first conv", "conv1": "conv1: 2 maps", "conv2": "conv2: 3 maps"
    }  # fmt: skip
    for given, _ in pictures.values():
        np.testing.assert_allclose(255 * given.images[0].get_array(), frames[0, 1, 0], rtol=1e-6)


def test_maps_are_laid_out_in_rows_twice_as_wide_as_high():
    page = mosaic(np.arange(1.0, 6)[:, None, None] * np.ones((5, 2, 3)))
    assert page.shape == (5, 11)  # two rows of three, with a pixel between
    assert (page[:2, :3] == 1).all()
    assert np.isnan(page[3:, 8:]).all()  # there is no sixth
    assert np.isnan(page[2]).all()
    assert mosaic(np.ones((1, 2, 9))).shape == (2, 9)
    assert mosaic(np.ones((3, 50, 2))).shape == (50, 8)  # narrower than that, but one row


def test_gates_are_pytorchs():
    torch.manual_seed(0)
    network = small_network()
    frames = sequences(torch.randint(0, 256, (1, 1, 16, 16), dtype=torch.uint8))
    panels = draw_gates(network, frames, "some").axes
    shown = {
        axes.get_title().partition(",")[0]: torch.from_numpy(np.asarray(axes.images[0].get_array())) for axes in panels
    }
    cell = nn.LSTMCell(network.recurrent.input_size, 5)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in network.recurrent.state_dict().items()})
    state, maps = None, network.encoder(frames / 255)[0].flatten(1)
    for step in range(4):
        state = cell(maps[step : step + 1], state)
        torch.testing.assert_close(shown["output"][step], state[0][0].detach())
        torch.testing.assert_close(shown["cell state"][step], state[1][0].detach())
    torch.testing.assert_close(shown["cell state"][0], shown["input gate"][0] * shown["cell candidate"][0])
    torch.testing.assert_close(shown["output"], shown["output gate"] * shown["cell state"].tanh())


def test_writing_events_leaves_tensorflow_alone(tmp_path):
    writer = "from quadrant_lstm.dashboard.tensorboard import TensorBoard; import sys, tensorboard.compat as c"
    events = f"TensorBoard({str(tmp_path)!r}).experiment.add_scalar('a', 1); assert c.tf.__version__ == 'stub'"
    subprocess.run([sys.executable, "-c", f"{writer}; {events}; assert 'tensorflow' not in sys.modules"], check=True)


class Ended(Exception):
    pass


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_a_point_is_written(signum, tmp_path, monkeypatch):
    def end(*_):
        raise Ended

    def disturbed(*_):
        signal.raise_signal(signum)
        written.append("a point")

    logger, written = TensorBoard(str(tmp_path)), []
    monkeypatch.setattr(logger.experiment, "add_scalar", disturbed)
    before = signal.signal(signum, end)
    try:
        with pytest.raises(Ended):
            logger.log_metrics({"a": 1.0}, 0)
        assert written == ["a point"]
        assert signal.getsignal(signum) is end
    finally:
        signal.signal(signum, before)


def test_augmentation_is_drawn_where_there_is_some(tmp_path, finished_run):
    data = ("data=idx", f"data.root={write_idx_folder(tmp_path / 'tiny')}", *TINY[1:], "trainer.max_epochs=1")
    done = script("train.py", *data, "data.augmentation.rotation=20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for run, expected in ((run_folder(tmp_path), True), (finished_run, False)):
        events = EventAccumulator(str(run), size_guidance={"images": 0})
        events.Reload()
        assert ("data/augmentation" in events.Tags()["images"]) == expected
    picture = draw_augmentation(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), lambda images: images + 255.0)
    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[-16]  # in the last row of images
    assert pixels[10, 0] == 0  # the first is as it is
    assert (pixels[350 // 11 + 16 :: 350 // 11, 0] == 255).all()

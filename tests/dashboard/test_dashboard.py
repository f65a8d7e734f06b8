"""What a run writes to TensorBoard and to report.html."""

import base64
import io
import re
import shutil
import signal
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from quadrant_lstm import ORDERINGS
from quadrant_lstm.callbacks.checkpoints import log_points
from quadrant_lstm.dashboard import gallery
from quadrant_lstm.dashboard.dashboard import Dashboard, add_states, hyperparameters
from quadrant_lstm.dashboard.report import AFTER_EACH_STEP, HISTORIES, SECTIONS, write_run_report
from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.image_sequences import ImageSequences
from quadrant_lstm.data.orderings import QUADRANTS
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.model.deep import DeepCNNLSTM
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.run_folder import read_results
from tests.clips import clips_in, write_clip_folder
from tests.folders import write_idx_folder
from tests.networks import CONSTANT, clip_network, trainer


@pytest.fixture(scope="module")
def events(finished_run):
    """The TensorBoard events of a finished run."""
    return EventAccumulator(str(finished_run), size_guidance={"images": 0, "scalars": 0}).Reload()


def test_exactly_the_documented_scalars_are_written(events):
    scalars = events.Tags()["scalars"]
    assert set(scalars) == {
        *(f"{stage}/{name}" for stage in ("train", "val", "test") for name in ("loss", "accuracy")),
        *(f"{stage}/{name}" for stage in ("val", "test") for name in ("balanced_accuracy", "macro_f1")),
        *(f"{stage}/accuracy_step_{step}" for stage in ("val", "test") for step in range(1, 5)),
        *("train/batch_loss", "train/gradient_norm", "train/weight_norm", "train/learning_rate"),
        *("train/epoch_seconds", "train/samples_per_second", "val/best_accuracy"),
    }
    assert [event.value for event in events.Scalars("train/learning_rate")] == pytest.approx([0.001] * 3)
    assert max(scalars) < min(events.Tags()["images"])  # pictures come after the curves in Time Series
    for tag in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert [event.step for event in events.Scalars(tag)] == [9, 19, 29]
    for tag in scalars:  # where the step decreases, TensorBoard drops the points before
        steps = [event.step for event in events.Scalars(tag)]
        assert steps == sorted(steps)


def test_graph_text_pr_curves_custom_scalars_and_projector_have_data(events, finished_run):
    layers = "|".join(("encoder", "flatten", "recurrent", "last_step", "dense", "head"))
    names = "\n".join(node.name for node in events.Graph().node)
    assert len(set(re.findall(rf"^CNNLSTM/\w+\[({layers})\]", names, re.MULTILINE))) == 6
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
    for curves in charts.values():  # each pattern matches one curve, not all that start alike
        assert all(len([tag for tag in scalars if re.search(curve, tag)]) == 1 for curve in curves)
    (states,) = finished_run.glob("*/last_state")
    assert len((states / "tensors.tsv").read_text().splitlines()) == 70
    labels = [int(label) for label in (states / "metadata.tsv").read_text().split()]
    assert labels == [number % 3 for number in range(70)]
    assert Image.open(states / "sprite.png").size == (9 * 8, 9 * 8)
    assert "last_state" in (finished_run / "projector_config.pbtxt").read_text()


def test_the_projector_shows_clips_in_their_colours(tmp_path, monkeypatch):
    data, shown = clips_in(write_clip_folder(tmp_path / "data")), []
    writer = SummaryWriter(str(tmp_path))
    monkeypatch.setattr(writer, "add_embedding", lambda states, labels, pictures, *_, **__: shown.append(pictures))
    add_states(writer, clip_network(data.spec.frame_shape, data.spec.num_classes), data, torch.arange(2), 0)
    assert torch.equal(shown[0] * 255, data.test_pictures(torch.arange(2)).float())


def test_hyperparameters_are_written_with_the_final_metrics(events, finished_run):
    data = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    parameters = metadata.parse_session_start_info_plugin_data(data).hparams
    assert parameters["model.lstm_units"].number_value == 5
    assert parameters["optimizer.lr"].number_value == 0.001
    assert parameters["model.filters"].string_value == "[4]"
    # augmentation is off, and data.seed is interpolated from seed
    assert not [name for name in parameters if "augmentation" in name or name == "data.seed"]
    experiment = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    names = [info.name.tag for info in metadata.parse_experiment_plugin_data(experiment).metric_infos]
    assert names == ["test/accuracy", "test/loss", "val/best_accuracy"]
    results = read_results(finished_run)
    assert events.Scalars("test/accuracy")[-1].value == pytest.approx(results["test/accuracy"])
    assert events.Scalars("val/best_accuracy")[-1].value == pytest.approx(results["val/accuracy"])


def test_the_varied_keys_of_a_sweep_include_the_choices_of_groups():
    keys = ["model", "model/recurrent", "optimizer.lr"]
    cfg = OmegaConf.create({"swept": keys, "model": {"units": 5}, "optimizer": {"lr": 0.1}})
    overrides = ["model=join", "model/recurrent=gru", "optimizer.lr=1e-1", "swept=[model,model/recurrent,optimizer.lr]"]
    assert hyperparameters(cfg, overrides) == {"model": "join", "model/recurrent": "gru", "optimizer.lr": 0.1}


def test_the_report_of_a_resumed_run_tells_the_samples_of_its_last_part(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    data = clips_in(write_clip_folder(tmp_path / "clips", num_frames=[3]))
    dashboard = Dashboard()
    dashboard.stages = [("stage", "layer", "output shape", "parameters")]
    write_run_report(run, read_results(run), dashboard, data)
    page = (run / "report.html").read_text()
    assert f"<td>Data<td>{data.summary}\n" in page
    assert f"<td>Training, validation and test<td>{data.origin}\n" in page


def test_the_report_holds_the_results_and_all_pictures_with_captions(finished_run, events):
    page = (finished_run / "report.html").read_text()
    results = read_results(finished_run)
    assert f"<td>Test accuracy<td>{100 * results['test/accuracy']:.2f} %" in page
    assert f"<td>Best epoch, which was tested<td>{results['best_epoch']} of 3" in page
    shares = (f"{100 * results[f'{split}/macro_f1']:.2f} %" for split in ("test", "val"))
    assert f"<td>Macro F1 in the test, and in validation<td>{', '.join(shares)}" in page
    headings = re.findall("<h2>(.*)</h2>", page)
    sections = [title for title in SECTIONS if title != "Other pictures"]
    assert headings == ["Result", "Curves", *sections, "Network", "Config"]
    shown = dict(re.findall(r'alt="([^"]+)" src="data:image/png;base64,([^"]+)"', page))
    pictures = {tag.removeprefix("view_"): events.Images(tag) for tag in events.Tags()["images"]}
    assert len(shown) == len(HISTORIES) + 1 + len(pictures)
    test = ("confusion", "classes", "calibration", "mistakes", "occluded_piece", "occluded_ordering")
    inside = ("filters", "conv1", "gates")
    assert {"data/orderings", "belief/example_6", "belief/mistake_1"} <= set(pictures)
    assert {*(f"test/{name}" for name in test), *(f"inside/{name}" for name in inside)} <= set(pictures)
    assert {(image.width, image.height) for images in pictures.values() for image in images} == {(350, 210)}
    assert {AFTER_EACH_STEP, "Example 6", "Mistake 1"} <= set(shown)
    assert not [caption for caption in shown if "/" in caption]  # words, not tags
    for caption, data in shown.items():
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))
        assert pixels.shape[1] > 300 and pixels.shape[0] > 200 and pixels.std() > 10, caption
    assert "<td>encoder.<wbr>conv1<td>Conv2d<td>" in page
    assert "lstm_units: 5" in page
    assert "  orderings:\n  - [1, 2, 3, 4]\n" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # nothing is fetched


def image_data(folder, **augmentation):
    root = str(write_idx_folder(folder / "images", test=20, size=16))
    return ImageSequences("idx", root, QUADRANTS, ORDERINGS, 40, 0, 16, 1, Augmentation(**augmentation))


JOINED = DeepCNNLSTM((1, 32, 8), 3, ORDERINGS, QUADRANTS, [[4], [6]], LSTM, 0.0, 5, join_pieces=True)
PLAIN = nn.Sequential(nn.Flatten(), nn.Linear(4 * 32 * 8, 3))


@pytest.mark.parametrize(("network", "inside"), [(JOINED, {"belief/mistake_1", "inside/gates"}), (PLAIN, set())])
def test_a_network_is_shown_as_far_as_it_offers_its_inside(network, inside, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "NUM_BELIEFS", 1)
    data, dashboard = image_data(tmp_path), Dashboard()
    classifier = Classifier(network, partial(torch.optim.SGD, lr=0.1), CONSTANT, data.spec)
    testing = trainer(TensorBoardLogger(str(tmp_path)), callbacks=[dashboard])
    testing.test(classifier, datamodule=data, verbose=False)
    tags = set(dashboard.pictures)
    assert tags >= {"test/confusion", "test/occluded_piece", "test/occluded_ordering", *inside}
    assert inside or not [tag for tag in tags if tag.startswith(("inside/", "belief/"))]


def test_augmentation_is_drawn_only_where_it_is_on(tmp_path):
    assert [tag for tag, _ in gallery.data_pictures(image_data(tmp_path))] == ["data/orderings"]
    tags = [tag for tag, _ in gallery.data_pictures(image_data(tmp_path, rotation=20.0))]
    assert tags == ["data/orderings", "data/augmentation"]


def test_a_signal_is_deferred_until_a_point_is_written(tmp_path, monkeypatch):
    def write_during_signal(*_):
        signal.raise_signal(signal.SIGINT)
        written.append("a point")

    logger, written = TensorBoardLogger(str(tmp_path)), []
    monkeypatch.setattr(logger.experiment, "add_scalar", write_during_signal)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            log_points(trainer(logger), {"a": 1.0}, 0, save=True)
        assert (written, signal.getsignal(signal.SIGINT)) == (["a point"], signal.default_int_handler)
    finally:
        signal.signal(signal.SIGINT, before)

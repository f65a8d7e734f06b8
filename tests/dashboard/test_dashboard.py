import io
import re
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from quadrant_lstm import ORDERINGS, sequences
from quadrant_lstm.dashboard.dashboard import Dashboard, add_graph, add_states
from quadrant_lstm.dashboard.pictures.network import correct_by_occluded_piece, draw_features, draw_gates
from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.data.image_sequences import ImageSequences
from quadrant_lstm.data.orderings import QUADRANTS
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.model.network import Join
from tests.folders import TINY, run_folder, tiny_data
from tests.networks import CONSTANT, RECURRENT, small_network, trainer
from tests.scripts import script

PICTURES = ("data/orderings", "test/confusion", "test/classes", "test/calibration", "test/mistakes_1",
            "test/occluded_piece", "test/occluded_ordering", "belief/example_1", "belief/example_6", "belief/mistake_1",
            "inside/filters", "inside/conv1", "inside/gates")  # fmt: skip


def test_exactly_the_documented_scalars_are_written(events):
    assert set(events.Tags()["scalars"]) == {
        *(f"{stage}/{name}" for stage in ("train", "val", "test") for name in ("loss", "accuracy")),
        *(f"{stage}/accuracy_step_{step}" for stage in ("val", "test") for step in range(1, 5)),
        *("train/batch_loss", "train/gradient_norm", "train/weight_norm", "train/learning_rate"),
        *("train/epoch_seconds", "train/samples_per_second", "val/best_accuracy"),
    }
    assert [event.value for event in events.Scalars("train/learning_rate")] == pytest.approx([0.001] * 3)


def test_pictures_come_after_the_curves_in_time_series(events):
    assert max(events.Tags()["scalars"]) < min(events.Tags()["images"])


def test_curves_have_one_point_per_epoch_and_steps_never_decrease(events):
    # where the step decreases, TensorBoard drops the points before
    for tag in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert [event.step for event in events.Scalars(tag)] == [9, 19, 29]
    for tag in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(tag)]
        assert steps == sorted(steps)


@pytest.mark.parametrize("tag", PICTURES)
def test_pictures_exist_and_are_not_blank(events, tag):
    (event,) = events.Images(f"view_{tag}")
    pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("L"))
    assert pixels.shape == (210, 350)
    assert pixels.std() > 10


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


def test_a_network_with_logits_only_is_shown_without_its_inside(idx_folder, tmp_path):
    data = ImageSequences("idx", str(idx_folder), QUADRANTS, ORDERINGS, 40, 0, 16, 1, Augmentation())
    dashboard, logger = Dashboard(), TensorBoardLogger(str(tmp_path), "", "")
    network = nn.Sequential(nn.Flatten(), nn.Linear(4 * 4 * 4 * 4, 3))
    classifier = Classifier(network, partial(torch.optim.SGD, lr=0.1), CONSTANT, data.spec)
    training = trainer(logger, max_epochs=1, log_every_n_steps=5, callbacks=[dashboard])
    training.fit(classifier, datamodule=data)
    training.test(classifier, datamodule=data, verbose=False)
    assert {"test/confusion", "test/occluded_piece", "test/occluded_ordering"} <= set(dashboard.pictures)
    assert not [name for name in dashboard.pictures if name.startswith(("inside/", "belief/"))]


def test_augmentation_is_drawn_only_where_it_is_on(tmp_path, finished_run):
    data = (*tiny_data(tmp_path), *TINY[1:], "trainer.max_epochs=1")
    done = script("train.py", *data, "data.augmentation.rotation=20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for run, expected in ((run_folder(tmp_path), True), (finished_run, False)):
        events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
        assert ("view_data/augmentation" in events.Tags()["images"]) == expected


def test_a_network_in_float64_is_shown(tmp_path):
    network, images = small_network().double(), torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    labels, frames = torch.arange(3), sequences(images[:1])
    assert draw_features(network, frames)
    draw_gates(network, frames, "some")
    assert correct_by_occluded_piece(network, images, labels, ORDERINGS, QUADRANTS).shape == (4, 3)
    with SummaryWriter(str(tmp_path)) as writer:
        add_graph(writer, network.in_full(), frames)
        add_states(writer, network, [Batch(sequences(images), labels)], images, "012", 0)
    assert EventAccumulator(str(tmp_path)).Reload().Graph().node
    assert len((next(tmp_path.glob("*/last_state")) / "tensors.tsv").read_text().splitlines()) == 3


def test_an_encoder_without_parameters_is_shown(tmp_path):
    sizes = {"dropout": 0.0, "lstm_units": 3, "dense_units": 4, "shared_tiles": False}
    network = Join((1, 6, 6), 3, 5, None, lambda channels: nn.Flatten(), RECURRENT["lstm"], **sizes).eval()
    frames = torch.zeros(2, 5, 1, 6, 6, dtype=torch.uint8)
    assert draw_features(network, frames[:1]) == {}
    draw_gates(network, frames[:1], "some")
    with SummaryWriter(str(tmp_path)) as writer:
        add_states(writer, network, [Batch(frames, torch.arange(2))], frames[:, 0], "012", 0)
    assert len((next(tmp_path.glob("*/last_state")) / "tensors.tsv").read_text().splitlines()) == 2

"""Tests the description of a network that export.py format=html writes into its page."""

import base64
import re
from functools import partial

import pytest
import torch
from torch import nn

from quadrant_lstm.data.orderings import ORDERINGS, QUADRANTS
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.encoder import Backbone
from quadrant_lstm.model.network import Join
from quadrant_lstm.model.protocols import tensors_in
from quadrant_lstm.run.build import build_network
from quadrant_lstm.run.drawing_page import fold_batch_norm, page_network
from quadrant_lstm.run.export import export
from quadrant_lstm.run_folder import read_results
from tests.configs import composed_config
from tests.networks import QUESTION, RECURRENT, question_network
from tests.pages import deep_network, shaken


def described(network):
    return page_network(fold_batch_norm(network), (1, 56, 14), 10, ORDERINGS, QUADRANTS)


def joined(encoder):
    sizes = {"dropout": 0.1, "lstm_units": 3, "dense_units": 4, "differences": False, "shared_tiles": False}
    return Join((1, 56, 14), 10, 4, ORDERINGS, encoder=encoder, recurrent=RECURRENT["lstm"], **sizes)


def test_the_layers_of_the_question_are_listed_in_order():
    description = described(question_network())
    assert [layer["type"] for layer in description["encoder"]] == ["conv", "relu", "conv", "pool", "relu"]
    assert description["encodes"] == "frame"
    conv, lstm = description["encoder"][2], description["recurrent"][0]
    assert (conv["type"], conv["kernel"], conv["padding"], [*conv["weight"].shape]) == ("conv", 3, 0, [32, 3, 3, 32])
    assert (lstm["type"], lstm["units"], lstm["bidirectional"]) == ("lstm", 5, False)
    assert [[*each["input"]["weight"].shape] for each in lstm["directions"]] == [[20, 4160]]
    assert [len(layer["bias"]) for layer in description["classifier"]] == [50, 10]
    assert sum(weight.numel() for weight in tensors_in(description)) == 93_718


@pytest.mark.parametrize("experiment", ["question", "fast", "quick", "best"])
def test_the_page_knows_the_networks_of_the_recipes(experiment):
    description = described(build_network(composed_config(f"experiment={experiment}"), QUESTION))
    assert description["encodes"] == ("frame" if experiment == "question" else "image")


def test_folding_batch_norm_changes_no_logits():
    network = shaken(deep_network())
    frames = torch.rand(5, 4, 1, 56, 14)
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert torch.allclose(folded(frames), network(frames), atol=1e-4)


LAYER = "which the page cannot compute, only conv"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: question_network(recurrent=RECURRENT["mean"]), f"recurrent is RunningMean.*, {LAYER}"),
        (lambda: joined(partial(nn.Conv2d, out_channels=2, kernel_size=3, stride=2)), r"encoder is Conv2d\(.*stride="),
        (lambda: joined(lambda channels: nn.Sequential(nn.Conv2d(channels, 2, 3), nn.GELU())), r"encoder\.1 is GEL"),
        (lambda: joined(lambda channels: nn.Sequential(nn.BatchNorm2d(1))), r"encoder\.0 is BatchNorm2d\("),
        (lambda: joined(lambda channels: Backbone(channels, "resnet18", None, 0, 1.0, None)), "encoder is Backbone"),
        (lambda: nn.Linear(2, 2), rf"model is Linear\(.*, {LAYER}"),
        (lambda: deep_network(join_pieces=False), "model.join_pieces is false, but the page .*; use format=onnx"),
    ],
)
def test_what_the_page_cannot_compute_is_named(make, message):
    with pytest.raises(UserError, match=f"^format=html: {message}"):
        described(make())


def test_images_in_colour_and_a_grid_of_pieces_are_refused():
    with pytest.raises(UserError, match="^format=html: images have 3 channels, but the page has one; use format=onnx"):
        page_network(question_network(), (3, 56, 14), 10, ORDERINGS, QUADRANTS)
    with pytest.raises(UserError, match=r"^format=html: data.grid is \[4, 2\], but the page cuts quadrants; use form"):
        page_network(question_network(), (1, 56, 14), 10, ["rows"], (4, 2))


@pytest.mark.parametrize(("weights", "bytes_each"), [("float32", 4), ("float16", 2)])
def test_a_run_becomes_one_page_with_its_weights_and_its_accuracy(weights, bytes_each, finished_run, tmp_path):
    page = export(finished_run, "html", weights=weights, output=str(tmp_path / "network.html")).read_text()
    embedded = re.findall(r'"(?:weight|bias)": "(.*?)"', page)
    results = read_results(finished_run)
    assert sum(len(base64.b64decode(text)) for text in embedded) == bytes_each * results["parameters"]
    assert f"{results['test/accuracy']:.2%}".replace("%", "\u00a0%") + " of 70 test images" in page
    assert ("Weights are stored as float16" in page) == (weights == "float16")
    assert not re.search(r"https?:|\b(src|href)=", page)


def test_the_type_of_the_weights_is_checked(finished_run):
    with pytest.raises(UserError, match="^weights: float16 is for format=html, but format is onnx; leave it out"):
        export(finished_run, "onnx", weights="float16")

"""Compares our network with the question's in Keras 3: with the same weights they return the same logits."""

import keras
import pytest
import torch

from quadrant_lstm import sequences
from quadrant_lstm.data.images import load_images
from quadrant_lstm.run.keras_model import KerasSizes, build_keras_model, copy_from_keras, copy_to_keras
from tests.networks import QUESTION, question_network


def keras_network(data_format="channels_first"):
    return build_keras_model(KerasSizes(), QUESTION, data_format=data_format)


@pytest.fixture
def frames():
    images = torch.from_numpy(load_images("mnist", None).test_images[:64])
    return sequences(images).float() / 255


def test_keras_counts_one_lstm_bias_less():
    assert keras_network().count_params() == 93698 == 93718 - 4 * 5


@pytest.mark.parametrize("shared_tiles", [True, False])
@pytest.mark.parametrize("to_keras", [True, False])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_logits_of_real_digits_equal_those_of_keras(data_format, to_keras, shared_tiles, frames):
    keras.utils.set_random_seed(0)
    network, model = question_network(shared_tiles=shared_tiles).eval(), keras_network(data_format)
    copy_to_keras(network, model) if to_keras else copy_from_keras(model, network)
    with torch.no_grad():
        theirs = model(frames if data_format == "channels_first" else frames.movedim(2, -1))
        ours = network(frames)
    torch.testing.assert_close(ours, torch.as_tensor(theirs).cpu(), atol=1e-5, rtol=0)
    assert ours.std(dim=0).min() > 1e-3  # different digits, different logits


def test_a_new_network_is_initialized_like_keras():
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)
    network, copy = question_network(), question_network()
    copy_from_keras(keras_network(), copy)
    for (name, ours), theirs in zip(network.state_dict().items(), copy.state_dict().values(), strict=True):
        if "bias" in name:
            assert torch.equal(ours, theirs), name
        elif name == "recurrent.weight_hh_l0":
            for weights in (ours, theirs):
                torch.testing.assert_close(weights.T @ weights, torch.eye(5))
        else:
            assert ours.abs().max() == pytest.approx(theirs.abs().max().item(), rel=0.03), name
            assert ours.std() == pytest.approx(theirs.std().item(), rel=0.15), name

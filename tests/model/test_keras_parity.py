"""Compares our network with the question's in Keras 3: with the same weights they return the same logits."""

import keras
import pytest
import torch

from quadrant_lstm import sequences
from quadrant_lstm.benchmark.keras_network import keras_network
from quadrant_lstm.data.sources import load_images
from tests.networks import question_network


def copy_to_keras(network, model: keras.Model) -> None:
    """Keras has convs [rows, columns, in, out], matrices [in, out], and one LSTM bias where PyTorch adds two."""
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    weights = []
    for conv in ("conv1", "conv2"):
        weights += [state[f"encoder.module.{conv}.weight"].transpose(2, 3, 1, 0), state[f"encoder.module.{conv}.bias"]]
    weights += [state["recurrent.weight_ih_l0"].T, state["recurrent.weight_hh_l0"].T]
    weights += [state["recurrent.bias_ih_l0"] + state["recurrent.bias_hh_l0"]]
    for dense in ("dense", "head"):
        weights += [state[f"{dense}.weight"].T, state[f"{dense}.bias"]]
    model.set_weights(weights)


def copy_from_keras(model: keras.Model, network) -> None:
    w = [torch.from_numpy(weight) for weight in model.get_weights()]
    state = {
        "encoder.module.conv1.weight": w[0].permute(3, 2, 0, 1),
        "encoder.module.conv1.bias": w[1],
        "encoder.module.conv2.weight": w[2].permute(3, 2, 0, 1),
        "encoder.module.conv2.bias": w[3],
        "recurrent.weight_ih_l0": w[4].T,
        "recurrent.weight_hh_l0": w[5].T,
        "recurrent.bias_ih_l0": w[6],
        "recurrent.bias_hh_l0": torch.zeros_like(w[6]),
        "dense.weight": w[7].T,
        "dense.bias": w[8],
        "head.weight": w[9].T,
        "head.bias": w[10],
    }
    network.load_state_dict(state)


@pytest.fixture
def frames():
    images = torch.from_numpy(load_images("mnist", None).test_images[:64])
    return sequences(images).float() / 255


def test_keras_counts_one_lstm_bias_less():
    assert keras_network().count_params() == 93698 == 93718 - 4 * 5


@pytest.mark.parametrize("shared_tiles", [True, False])
@pytest.mark.parametrize("to_keras", [True, False])
def test_logits_of_real_digits_equal_those_of_keras(to_keras, shared_tiles, frames):
    keras.utils.set_random_seed(0)
    network, model = question_network(shared_tiles=shared_tiles).eval(), keras_network("channels_first")
    copy_to_keras(network, model) if to_keras else copy_from_keras(model, network)
    with torch.no_grad():
        ours, theirs = network(frames), torch.as_tensor(model(frames))
    torch.testing.assert_close(ours, theirs.cpu(), atol=1e-5, rtol=0)
    assert ours.std(dim=0).min() > 1e-3  # different digits, different logits


def test_a_new_network_is_initialized_like_keras():
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)
    network, copy = question_network(), question_network()
    copy_from_keras(keras_network("channels_first"), copy)
    for (name, ours), theirs in zip(network.state_dict().items(), copy.state_dict().values(), strict=True):
        if "bias" in name:
            assert torch.equal(ours, theirs), name
        elif name == "recurrent.weight_hh_l0":
            for weights in (ours, theirs):
                torch.testing.assert_close(weights.T @ weights, torch.eye(5))
        else:
            assert ours.abs().max() == pytest.approx(theirs.abs().max().item(), rel=0.03), name
            assert ours.std() == pytest.approx(theirs.std().item(), rel=0.15), name

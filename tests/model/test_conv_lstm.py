import keras
import numpy as np
import pytest
import torch

from quadrant_lstm import ConvLSTM


def layer(**options) -> ConvLSTM:
    torch.manual_seed(0)
    made = ConvLSTM(2, 3, 3, **options)
    torch.nn.init.normal_(made.bias)
    return made


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_outputs_states_and_gradients_equal_those_of_keras(padding):
    ours = layer(padding=padding)
    theirs = keras.layers.ConvLSTM2D(3, 3, padding=padding, return_sequences=True, return_state=True)
    frames = torch.randn(2, 4, 2, 7, 6)
    channels_last = frames.permute(0, 1, 3, 4, 2)
    theirs.build(tuple(channels_last.shape))
    kernels = [weight.permute(2, 3, 1, 0).detach().numpy() for weight in (ours.weight_ih, ours.weight_hh)]
    theirs.set_weights([*kernels, ours.bias.detach().numpy()])
    outputs, (h, c) = ours(frames)
    expected, *states = (keras.ops.convert_to_numpy(value) for value in theirs(channels_last))
    np.testing.assert_allclose(outputs.permute(0, 1, 3, 4, 2).detach(), expected, atol=1e-5)
    for found, state in zip((h, c), states, strict=True):
        np.testing.assert_allclose(found.permute(0, 2, 3, 1).detach(), state, atol=1e-5)


def test_under_autocast_the_state_keeps_the_dtype_of_the_weights():
    """It sums over the steps."""
    with torch.autocast("cpu", torch.bfloat16):
        _, (_, c) = layer()(torch.randn(1, 2, 2, 5, 5))
    assert c.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvLSTM(2, 3, 2), "kernel_size 2 is not an odd number"),
        (lambda: ConvLSTM(2, 3, 3, "full"), "padding 'full' is not 'same' or 'valid'"),
        (lambda: layer()(torch.zeros(2, 4, 3, 7, 6)), r"frames have the shape \[2, 4, 3, 7, 6\]; expected"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

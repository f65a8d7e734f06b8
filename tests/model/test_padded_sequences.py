"""Tests what all recurrent layers promise: padding changes nothing, and sequences can be cut."""

import pytest
import torch
from torch import nn

from quadrant_lstm import ConvLSTM
from quadrant_lstm.model.memoryless import PerStep, RunningMean
from quadrant_lstm.model.protocols import check_lengths
from quadrant_lstm.model.rnn import GRU, LSTM
from quadrant_lstm.model.transformer import Transformer

LAYERS = {
    "lstm": lambda: LSTM(6, 4),
    "gru": lambda: GRU(6, 4),
    "stacked": lambda: LSTM(6, 4, num_layers=2),
    "bidirectional": lambda: LSTM(6, 4, num_layers=2, bidirectional=True),
    "bidirectional_gru": lambda: GRU(6, 4, bidirectional=True),
    "conv_lstm": lambda: ConvLSTM(2, 3, 3),
    "conv_lstm_valid": lambda: ConvLSTM(2, 3, 3, padding="valid"),
    "transformer": lambda: Transformer(6, 8, num_heads=2),
    "mean": lambda: RunningMean(6, 4),
    "last": lambda: PerStep(6, 4),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def layer_and_frames(name: str, batch: int, steps: int):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer, frames_for(name, batch, steps)


def frames_for(name: str, batch: int, steps: int):
    return torch.randn(batch, steps, *((2, 5, 4) if "conv" in name else (3, 2)))


def tensors_of(state) -> list[torch.Tensor]:
    """Returns the tensors of a state, with the batch in front."""
    states = [state] if isinstance(state, torch.Tensor) else state or ()
    return [tensor.transpose(0, 1) if tensor.ndim == 3 else tensor for tensor in states]


@each_layer
def test_padding_changes_nothing(name):
    layer, frames = layer_and_frames(name, batch=3, steps=4)
    lengths = torch.tensor([4, 1, 3])
    frames.requires_grad_()
    outputs, state = layer(frames, lengths=lengths)
    (outputs.square().sum() + sum(tensor.sum() for tensor in tensors_of(state))).backward()
    for number, length in enumerate(lengths.tolist()):
        alone = frames[number : number + 1, :length].detach().requires_grad_()
        expected, expected_state = layer(alone)
        (expected.square().sum() + sum(tensor.sum() for tensor in tensors_of(expected_state))).backward()
        torch.testing.assert_close(outputs[number, :length], expected[0])
        assert not outputs[number, length:].any()
        for found, tensor in zip(tensors_of(state), tensors_of(expected_state), strict=True):
            torch.testing.assert_close(found[number], tensor[0])
        torch.testing.assert_close(frames.grad[number, :length], alone.grad[0])
        assert not frames.grad[number, length:].any()


@pytest.mark.parametrize("name", ["lstm", "gru", "stacked", "conv_lstm", "conv_lstm_valid"])
def test_padded_sequences_can_be_resumed(name):
    layer, frames = layer_and_frames(name, batch=2, steps=6)
    first, state = layer(frames[:, :3], lengths=torch.tensor([3, 2]))
    second, state = layer(torch.stack([frames[0, 3:], frames[1, 2:5]]), state, lengths=torch.tensor([2, 3]))
    third, _ = layer(frames[:, 5:], state)
    whole, _ = layer(frames)
    torch.testing.assert_close(torch.cat([first[0], second[0, :2]]), whole[0, :5])
    torch.testing.assert_close(torch.cat([first[1, :2], second[1], third[1]]), whole[1])


def test_a_transformers_outputs_depend_on_the_order_of_earlier_steps():
    layer, frames = layer_and_frames("transformer", batch=2, steps=3)
    assert (layer(frames)[0] - layer(frames[:, [1, 0, 2]])[0])[:, 2].abs().max() > 0.01


def test_a_transformers_positions_are_exact_where_bf16_is_the_default_type():
    layer, frames = layer_and_frames("transformer", batch=1, steps=200)
    expected, _ = layer(frames)
    torch.set_default_dtype(torch.bfloat16)  # as Lightning does for bf16-true
    try:
        found, _ = layer(frames)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected)


def test_under_autocast_states_are_of_the_dtype_of_the_weights_and_a_transformer_keeps_that_of_its_inputs():
    for name in ("lstm", "conv_lstm"):
        layer, frames = layer_and_frames(name, batch=1, steps=2)
        with torch.autocast("cpu", torch.bfloat16):
            _, (_, c) = layer(frames)  # it sums over the steps
        assert c.dtype == torch.float32
    layer, frames = layer_and_frames("transformer", batch=2, steps=3)
    expected, _ = layer(frames)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16):
            found, _ = layer(frames.to(dtype))
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.1)


@each_layer
def test_lengths_that_do_not_fit_are_refused(name):
    layer, frames = layer_and_frames(name, batch=2, steps=4)
    message = r"lengths are .*; expected an int64 tensor \[2\] with numbers from 1 to 4."
    for lengths in ([0, 2], [-1, 2], [5, 2]):
        with pytest.raises(ValueError, match=message):
            layer(frames, lengths=torch.tensor(lengths))
    for lengths in (torch.tensor([2]), torch.tensor([2.0, 2.0])):
        with pytest.raises(ValueError, match=message):
            check_lengths(frames, lengths)


@pytest.mark.parametrize("steps", [4, 12])
def test_a_state_may_be_a_list_and_one_of_another_shape_is_refused(steps):
    layer, frames = layer_and_frames("lstm", batch=2, steps=steps)
    state = layer(frames)[1]
    torch.testing.assert_close(layer(frames, list(state)), layer(frames, state))
    with pytest.raises(RuntimeError, match=r"Expected hidden\[0\] size \(1, 2, 4\), got \[1, 1, 4\]"):
        layer(frames, layer(frames[:1])[1])
    layer, frames = layer_and_frames("conv_lstm", batch=2, steps=steps)
    with pytest.raises(ValueError, match=r"shapes \[\[1, 3, 5, 4\], .*; expected \[2, 3, 5, 4\] twice"):
        layer(frames, layer(frames[:1])[1])


def test_a_conv_lstm_has_an_odd_kernel():
    with pytest.raises(ValueError, match="kernel_size 2 is not an odd number"):
        ConvLSTM(2, 3, 2)

"""Tests what all recurrent layers promise: padding changes nothing, sequences can be cut, programs take any size."""

import pytest
import torch
from torch import nn
from torch.export import Dim, export

from quadrant_lstm import ConvLSTM
from quadrant_lstm.model.memoryless import Concatenated, PerStep, RunningMean
from quadrant_lstm.model.protocols import check_lengths, check_sizes
from quadrant_lstm.model.rnn import GRU, LSTM
from quadrant_lstm.model.transformer import Transformer
from tests.scripts import call_unchecked

DYNAMIC = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
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
    """Returns the tensors of a state, with the batch in front; not what a transformer stores of padding."""
    if isinstance(state, torch.Tensor):
        return [state.transpose(0, 1)]
    if hasattr(state, "keys"):
        kept = state.real[:, None, None, :, None]
        return [(tensor.transpose(0, 1) * kept) for tensor in (state.keys, state.values)]
    floats = [tensor for tensor in state or () if tensor.is_floating_point()]
    return [tensor.transpose(0, 1) if tensor.ndim == 3 else tensor for tensor in floats]


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
        if name != "transformer":  # its state grows with the steps
            for found, tensor in zip(tensors_of(state), tensors_of(expected_state), strict=True):
                torch.testing.assert_close(found[number], tensor[0])
        torch.testing.assert_close(frames.grad[number, :length], alone.grad[0])
        assert not frames.grad[number, length:].any()


@pytest.mark.parametrize("name", [name for name in LAYERS if "bidirectional" not in name])
def test_padded_sequences_can_be_resumed(name):
    layer, frames = layer_and_frames(name, batch=2, steps=6)
    first, state = layer(frames[:, :3], lengths=torch.tensor([3, 2]))
    second, state = layer(torch.stack([frames[0, 3:], frames[1, 2:5]]), state, lengths=torch.tensor([2, 3]))
    third, _ = layer(frames[:, 5:], state)
    whole, _ = layer(frames)
    torch.testing.assert_close(torch.cat([first[0], second[0, :2]]), whole[0, :5])
    torch.testing.assert_close(torch.cat([first[1, :2], second[1], third[1]]), whole[1])


@pytest.mark.parametrize(("ours", "library"), [(LSTM, nn.LSTM), (GRU, nn.GRU)])
@pytest.mark.parametrize("steps", [5, 12])
def test_results_are_those_of_pytorch(ours, library, steps):
    layer, expected = ours(6, 4, num_layers=2), library(6, 4, num_layers=2, batch_first=True)
    expected.load_state_dict(layer.state_dict())
    frames = torch.randn(2, steps, 3, 2)
    torch.testing.assert_close(layer(frames), expected(frames.flatten(2)))


def test_a_transformers_outputs_do_not_depend_on_later_steps():
    layer, frames = layer_and_frames("transformer", batch=2, steps=5)
    changed = frames.clone()
    changed[:, 3:] = 0
    torch.testing.assert_close(layer(frames)[0][:, :3], layer(changed)[0][:, :3])


def test_a_transformers_outputs_depend_on_the_order_of_earlier_steps():
    layer, frames = layer_and_frames("transformer", batch=2, steps=3)
    assert (layer(frames)[0] - layer(frames[:, [1, 0, 2]])[0])[:, 2].abs().max() > 0.01


@each_layer
def test_states_have_the_dtype_of_the_weights(name):
    layer, frames = layer_and_frames(name, batch=1, steps=2)
    outputs, state = layer.double()(frames.double())
    assert {tensor.dtype for tensor in (outputs, *tensors_of(state))} == {torch.float64}


def check_exported(name: str) -> None:
    layer, frames = layer_and_frames(name, batch=2, steps=4)
    whole = export(layer.eval(), (frames,), dynamic_shapes={"frames" if "conv" in name else "inputs": DYNAMIC}).module()
    shapes = {"frames" if "conv" in name else "inputs": DYNAMIC, "state": None, "lengths": {0: Dim.DYNAMIC}}
    padded = export(layer, (frames, None, torch.tensor([4, 2])), dynamic_shapes=shapes).module()
    for batch, steps in ((2, 4), (3, 1), (2, 9)):
        frames, lengths = frames_for(name, batch, steps), torch.randint(1, steps + 1, (batch,))
        torch.testing.assert_close(whole(frames), layer(frames))
        torch.testing.assert_close(padded(frames, None, lengths), layer(frames, None, lengths))


def some(*names: str):
    """The other layers are exported with `-m reliability`, because an export takes seconds."""
    others = [pytest.param(name, marks=pytest.mark.reliability) for name in LAYERS if name not in names]
    return pytest.mark.parametrize("name", [*names, *others])


@some("transformer")
def test_an_exported_program_takes_any_batch_steps_and_lengths(name):
    call_unchecked(check_exported, name)


def check_onnx(name: str, file: str) -> None:
    import onnxruntime

    layer, frames = layer_and_frames(name, batch=2, steps=4)
    shapes = {"frames" if "conv" in name else "inputs": DYNAMIC, "state": None, "lengths": {0: Dim.DYNAMIC}}
    torch.onnx.export(
        layer.eval(), (frames, None, torch.tensor([4, 2])), file, dynamic_shapes=shapes, verbose=False,
        input_names=["frames", "lengths"],
    )  # fmt: skip
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for batch, steps in ((2, 4), (3, 1), (2, 9)):
        frames, lengths = frames_for(name, batch, steps), torch.randint(1, steps + 1, (batch,))
        found = session.run(None, {"frames": frames.numpy(), "lengths": lengths.numpy()})
        outputs, _ = layer(frames, None, lengths)
        torch.testing.assert_close(torch.from_numpy(found[0]), outputs)


@some("lstm", "conv_lstm")
def test_an_onnx_file_takes_any_batch_steps_and_lengths(name, tmp_path):
    pytest.importorskip("onnxruntime")
    call_unchecked(check_onnx, name, str(tmp_path / "layer.onnx"))


@pytest.mark.parametrize("layer", [LSTM(6, 4), Transformer(6, 8), RunningMean(6, 4), Concatenated(6, 4, num_steps=4)])
def test_inputs_that_do_not_fit_are_named(layer):
    for shape in ((2, 6), (2, 4, 5), (2, 4, 2, 6)):
        with pytest.raises(
            ValueError, match=rf"\[{', '.join(map(str, shape))}\]; expected \[batch, steps, ...\] with 6"
        ):
            layer(torch.zeros(shape))


@each_layer
def test_a_sequence_without_steps_is_refused(name):
    layer, frames = layer_and_frames(name, batch=2, steps=0)
    with pytest.raises(ValueError, match=r"have the shape \[2, 0, .*; expected \[batch, steps, .* at least one step"):
        layer(frames)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (LSTM, {"input_size": 6, "num_units": 4, "num_layers": 1}),
        (GRU, {"input_size": 6, "num_units": 4, "num_layers": 1}),
        (ConvLSTM, {"in_channels": 2, "hidden_channels": 3}),
        (Transformer, {"input_size": 6, "num_units": 8, "num_layers": 2, "num_heads": 4}),
        (PerStep, {"input_size": 6, "num_units": 4}),
        (RunningMean, {"input_size": 6, "num_units": 4}),
        (Concatenated, {"input_size": 6, "num_units": 4, "num_steps": 3}),
    ],
)
def test_a_size_below_one_is_named(make, arguments):
    others = {"kernel_size": 3} if make is ConvLSTM else {}
    for name in arguments:
        with pytest.raises(ValueError, match=f"^{make.__name__}: {name} 0 is not a whole number of at least 1.$"):
            make(**others | arguments | {name: 0})


def test_a_size_with_a_fraction_is_refused():
    with pytest.raises(ValueError, match="layer: num_units 2.5 is not a whole number"):
        check_sizes("layer", num_units=2.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_a_transformer_keeps_the_dtype_of_its_inputs(dtype):
    layer, frames = layer_and_frames("transformer", batch=2, steps=3)
    expected, _ = layer(frames)
    with torch.autocast("cpu", torch.bfloat16):
        first, state = layer(frames[:, :2].to(dtype))
        second, state = layer(frames[:, 2:].to(dtype), state)
    assert {tensor.dtype for tensor in (first, second, state.keys, state.values)} == {dtype}
    torch.testing.assert_close(torch.cat([first, second], 1).float(), expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("steps", [4, 12])
@each_layer
def test_lengths_that_do_not_fit_are_refused(name, steps):
    layer, frames = layer_and_frames(name, batch=2, steps=steps)
    for lengths in ([0, 2], [-1, 2], [steps + 1, 2]):
        with pytest.raises(ValueError, match=f"expected numbers from 1 to {steps}"):
            layer(frames, lengths=torch.tensor(lengths))
    with pytest.raises(ValueError, match="lengths are on meta, but inputs on cpu; move them there"):
        layer(frames, lengths=torch.ones(2, dtype=torch.int64, device="meta"))
    for lengths in ([2, 2], torch.tensor([2]), torch.tensor([[2, 2]]), torch.tensor([2.0, 2.0])):
        with pytest.raises(ValueError, match=r"layer: lengths are .*; expected an int64 tensor of shape \[2\]"):
            check_lengths("layer", lengths, frames)


@pytest.mark.parametrize("steps", [4, 12])
@pytest.mark.parametrize("name", ["lstm", "gru", "stacked", "conv_lstm", "transformer", "mean"])
def test_a_state_of_other_shapes_is_refused(name, steps):
    layer, frames = layer_and_frames(name, batch=2, steps=steps)
    one_sample = LAYERS[name]()(frames[:1])[1]
    with pytest.raises(ValueError, match="the state has the shapes"):
        layer(frames, one_sample)


def test_a_state_may_be_a_list():
    layer, frames = layer_and_frames("lstm", batch=2, steps=3)
    state = layer(frames)[1]
    torch.testing.assert_close(layer(frames, list(state)), layer(frames, state))


def test_the_shapes_of_a_state_are_named():
    with pytest.raises(ValueError, match=r"GRU: the state has the shapes \(\[1, 2, 4\]\); expected \[1, 2, 4\].$"):
        GRU(6, 4)(torch.zeros(2, 3, 6), (torch.zeros(1, 2, 4),))
    with pytest.raises(ValueError, match=r"shapes \[1, 2, 4\]; expected \(\[1, 2, 4\], \[1, 2, 4\]\).$"):
        LSTM(6, 4)(torch.zeros(2, 3, 6), torch.zeros(1, 2, 4))


@pytest.mark.parametrize("steps", [4, 12])
@each_layer
def test_an_empty_batch_has_no_outputs(name, steps):
    layer, frames = layer_and_frames(name, batch=0, steps=steps)
    assert layer(frames, lengths=torch.zeros(0, dtype=torch.int64))[0].shape[:2] == (0, steps)

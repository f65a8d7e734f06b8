"""Compares TimeDistributed with a loop over the frames, one at a time."""

import copy
import itertools
import subprocess
import sys
from collections import UserDict, deque
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim, export

from quadrant_lstm import TimeDistributed
from quadrant_lstm.model.time_distributed import check_mask
from tests.scripts import call_unchecked


class Features(NamedTuple):
    image: torch.Tensor
    parts: list


class Nested(nn.Module):
    """Takes an image, a dict with a list of vectors, and a factor; returns a named tuple that contains a dict."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.linear = nn.Linear(3, 2)

    def forward(self, image, extra, factor=1.0, bias=None):
        vector = self.linear(extra["vectors"][0] * extra["vectors"][1] * factor)
        vector = vector if bias is None else vector + bias
        return Features(self.conv(image).tanh(), [{"vector": vector, "factor": factor}, vector.sum(1)])


def nested_inputs(leading: tuple[int, ...]):
    vectors = [torch.randn(*leading, 3), torch.randn(*leading, 3)]
    return torch.randn(*leading, 1, 5, 4), {"vectors": vectors}, torch.randn(*leading, 2)


def loop(module, image, extra, bias, mask):
    """Returns the outputs of one frame at a time, zeros for a frame that is not real."""
    leading = image.shape[:-3]
    frames = []
    for index in itertools.product(*map(range, leading)):
        vectors = {"vectors": [vector[index][None] for vector in extra["vectors"]]}
        maps, (parts, total) = module(image[index][None], vectors, factor=2.0, bias=bias[index][None])
        frames.append([part[0] * mask[index] for part in (maps, parts["vector"], total)])
    return [torch.stack(parts).unflatten(0, leading) for parts in zip(*frames, strict=True)]


def gradients(outputs, module):
    module.zero_grad()
    sum((output * torch.arange(output.numel()).view(output.shape).cos()).sum() for output in outputs).backward()
    return [parameter.grad for parameter in module.parameters()]


@settings(max_examples=40, deadline=None)
@given(
    leading=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    chunk=st.none() | st.integers(1, 7),
    checkpoint=st.booleans(),
    masked=st.sampled_from(["nothing", "some", "all"]),
    data=st.data(),
)
def test_results_and_gradients_equal_a_loop_over_the_frames(leading, chunk, checkpoint, masked, data):
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    module = Nested()
    image, extra, bias = nested_inputs(leading)
    share = {"nothing": 0.0, "some": 0.5, "all": 1.0}[masked]
    mask = torch.rand(leading) >= share
    distributed = TimeDistributed(module, len(leading), chunk, checkpoint)
    features = distributed(image, extra, factor=2.0, bias=bias, mask=None if masked == "nothing" else mask)
    assert isinstance(features, Features)
    assert features.parts[0]["factor"] == 2.0
    found = [features.image, features.parts[0]["vector"], features.parts[1]]
    expected = loop(module, image, extra, bias, mask)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, module), gradients(expected, module))


def test_nested_modules_fold_one_step_axis_each():
    inner = TimeDistributed(nn.Flatten())
    assert TimeDistributed(inner)(torch.zeros(2, 3, 4, 5, 6)).shape == (2, 3, 4, 30)


def test_permuted_inputs_are_folded():
    frames = torch.randn(4, 1, 8, 6, 5).permute(4, 0, 1, 2, 3)
    torch.testing.assert_close(TimeDistributed(nn.Flatten())(frames), frames.flatten(2))


def test_masked_frames_enter_no_batch_statistics():
    frames, mask = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, False, False]])
    found, expected = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    outputs = TimeDistributed(found)(frames, mask=mask)
    torch.testing.assert_close(outputs[mask], expected(frames[mask]))
    torch.testing.assert_close(found.state_dict(), expected.state_dict())
    TimeDistributed(found)(frames, mask=torch.zeros_like(mask))
    torch.testing.assert_close(found.state_dict(), expected.state_dict())
    assert found.training


class CountsCalls(nn.Module):
    """A module of a user whose buffer changes in each forward pass."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, inputs):
        self.calls += 1
        return inputs


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(2), nn.BatchNorm2d(2, momentum=None), nn.InstanceNorm2d(2, track_running_stats=True),
        CountsCalls(),
    ],
)  # fmt: skip
def test_recomputed_frames_change_buffers_once(norm):
    torch.manual_seed(0)
    frames = torch.randn(2, 3, 1, 6, 6)
    modules = [nn.Sequential(nn.Conv2d(1, 2, 3), copy.deepcopy(norm), nn.Dropout()) for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    for module, checkpoint in zip(modules, (False, True), strict=True):
        for seed in range(2):
            torch.manual_seed(seed)  # dropout draws the same mask
            TimeDistributed(module, checkpoint=checkpoint)(frames).square().sum().backward()
    torch.testing.assert_close(modules[0].state_dict(), modules[1].state_dict())
    torch.testing.assert_close(*([parameter.grad for parameter in module.parameters()] for module in modules))


def test_a_graph_that_is_retained_is_recomputed_for_every_backward_pass():
    distributed, frames = TimeDistributed(nn.BatchNorm1d(3), checkpoint=True), torch.randn(2, 4, 3, requires_grad=True)
    loss = distributed(frames).pow(3).sum()
    first, second = (torch.autograd.grad(loss, frames, retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second)
    assert distributed.module.num_batches_tracked == 1


class Counts(nn.Module):
    """Records the numbers of frames it has seen at once."""

    def __init__(self):
        super().__init__()
        self.counts = []

    def forward(self, frames):
        self.counts.append(len(frames))
        return frames


@pytest.mark.parametrize(("chunk", "counts"), [(20, [20]), (19, [10, 10]), (7, [6, 7, 7]), (5, [5, 5, 5, 5])])
def test_chunks_have_nearly_equal_numbers_of_frames_and_at_most_those_asked_for(chunk, counts):
    module = Counts()
    frames = torch.randn(5, 4, 2)
    torch.testing.assert_close(TimeDistributed(module, chunk=chunk)(frames), frames)
    assert module.counts == counts


def test_batch_norm_never_sees_a_single_frame_in_chunks_of_three():
    for steps in range(2, 20):
        TimeDistributed(nn.BatchNorm1d(2), chunk=3)(torch.randn(1, steps, 2))


def test_an_empty_batch_may_have_a_chunk():
    assert TimeDistributed(nn.Linear(2, 3), chunk=2)(torch.zeros(0, 4, 2)).shape == (0, 4, 3)


def test_masked_frames_are_not_computed():
    module = Counts()
    TimeDistributed(module)(torch.randn(5, 4, 2), mask=torch.arange(20).view(5, 4) < 7)
    assert module.counts == [7]


DYNAMIC = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
SIZES = ((3, 4), (1, 1), (2, 9))  # batch and steps


def encoder(**options) -> TimeDistributed:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())
    return TimeDistributed(nn.Sequential(*layers), **options).eval()


def check_exported() -> None:
    distributed = encoder(chunk=3)
    plain = export(distributed, (torch.randn(3, 4, 1, 6, 5),), dynamic_shapes={"inputs": (DYNAMIC,)}).module()
    example = (torch.randn(3, 4, 1, 6, 5),), {"mask": torch.ones(3, 4, dtype=torch.bool)}
    masked = export(distributed, *example, dynamic_shapes={"inputs": (DYNAMIC,), "mask": DYNAMIC}).module()
    for batch, steps in SIZES:
        frames, mask = torch.randn(batch, steps, 1, 6, 5), torch.rand(batch, steps) > 0.5
        torch.testing.assert_close(plain(frames), distributed(frames))
        torch.testing.assert_close(masked(frames, mask=mask), distributed(frames, mask=mask))


def test_an_exported_program_takes_any_batch_any_steps_and_any_mask():
    call_unchecked(check_exported)


def test_an_onnx_file_takes_any_batch_and_any_steps(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    distributed, file = encoder(), tmp_path / "network.onnx"
    torch.onnx.export(
        distributed, (torch.randn(3, 4, 1, 6, 5),), file, dynamic_shapes={"inputs": (DYNAMIC,)}, verbose=False,
        input_names=["frames"],
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for batch, steps in SIZES:
        frames = torch.randn(batch, steps, 1, 6, 5)
        (found,) = session.run(None, {"frames": frames.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), distributed(frames))


def check_compiled() -> None:
    for options in ({}, {"checkpoint": True}, {"chunk": 5}):
        distributed = encoder(**options)
        compiled = torch.compile(distributed, backend="aot_eager")
        for batch, steps in SIZES[1:]:
            frames, mask = torch.randn(batch, steps, 1, 6, 5), torch.rand(batch, steps) > 0.5
            torch.testing.assert_close(compiled(frames), distributed(frames))
            torch.testing.assert_close(compiled(frames, mask=mask), distributed(frames, mask=mask))
        found, expected = copy.deepcopy(distributed).train(), copy.deepcopy(distributed).train()
        compiled = torch.compile(found, backend="aot_eager")
        torch.testing.assert_close(gradients([compiled(frames)], found), gradients([expected(frames)], expected))
        torch.testing.assert_close(found.state_dict(), expected.state_dict())


def test_the_compiled_module_equals_the_module():
    call_unchecked(check_compiled)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TimeDistributed(nn.Identity())(torch.zeros(3)),
         r"inputs\[0\] has the shape \[3\]; its first axes must be \[batch, steps\].$"),
        (lambda: TimeDistributed(nn.Identity(), 3)(torch.zeros(5, 4, 3), {"a": [torch.zeros(5, 2, 3)]}),
         r"inputs\[1\]\['a'\]\[0\] has the shape \[5, 2, 3\]; its first axes must be \[batch=5, steps1=4, step"),
        (lambda: TimeDistributed(nn.Identity())(torch.zeros(5, 4), scale=torch.zeros(5)),
         r"kwargs\['scale'\] has the shape \[5\]; its first axes must be \[batch=5, steps=4\], as those of inp"),
        (lambda: TimeDistributed(nn.LSTM(3, 2))(torch.zeros(2, 3, 4, 3)),
         r"LSTM was given 6 frames, but output\[1\]\[0\] has the shape \[1, 4, 2\]; the first axis must be"),
        (lambda: TimeDistributed(nn.Identity())(1), "there is no tensor among the inputs."),
        (lambda: TimeDistributed(nn.Identity(), num_axes=0), "num_axes 0 is not a whole number of at least 1."),
        (lambda: TimeDistributed(nn.Identity(), chunk=0), "chunk 0 is not a whole number of at least 1."),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def notes_on(call) -> list[str]:
    with pytest.raises(Exception) as error:
        call()
    return error.value.__notes__


REMEDY = "If these are not its axes, add a missing one with x.unsqueeze, or move one with x.movedim."


def test_an_error_of_the_module_tells_how_the_axes_were_read():
    conv = TimeDistributed(nn.Conv2d(1, 8, 3))
    expected = "Conv2d expects [batch, 1, height, width]."
    assert notes_on(lambda: conv(torch.zeros(8, 1, 9, 7))) == [
        "TimeDistributed read inputs[0] as [batch=8, steps=1, 9, 7] and gave Conv2d [batch*steps=8, 9, 7]. "
        f"{expected} {REMEDY}"
    ]
    assert notes_on(lambda: TimeDistributed(conv, 3)(torch.zeros(8, 4, 3, 28, 28, 1))) == [
        "TimeDistributed read inputs[0] as [batch=96, steps=28, 28, 1] and gave Conv2d [batch*steps=2688, 28, 1]. "
        f"{expected} {REMEDY}",
        "TimeDistributed read inputs[0] as [batch=8, steps1=4, steps2=3, 28, 28, 1] and gave TimeDistributed "
        f"[batch*steps1*steps2=96, 28, 28, 1]. {REMEDY}",
    ]


def test_an_error_tells_what_the_first_layer_expects_only_if_frames_do_not_fit_it():
    encoder = TimeDistributed(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8, 4)))
    (note,) = notes_on(lambda: encoder(torch.zeros(8, 4, 9, 7, 1)))
    assert "and gave Sequential [batch*steps=32, 9, 7, 1]. Conv2d expects [batch, 1, height, width]. " in note
    (note,) = notes_on(lambda: encoder(torch.zeros(8, 4, 1, 9, 7)))  # the linear layer fails
    assert "expects" not in note


def test_an_error_of_the_users_code_stays_what_it_is():
    raised = KeyError("units")

    def fail(_):
        raise raised

    (note,) = notes_on(lambda: TimeDistributed(Returns(fail), chunk=6)(torch.zeros(5, 4, 2), torch.zeros(5, 4)))
    assert raised.__notes__ == [note]
    assert "read inputs[0] as [batch=5, steps=4, 2] and gave Returns [batch*steps=20, 2]. " in note
    assert "read inputs[1] as [batch=5, steps=4] and gave Returns [batch*steps=20]. " in note


@pytest.mark.parametrize(
    ("mask", "given"),
    [
        (torch.ones(5, 4), r"torch.float32 \[5, 4\]"),
        (torch.ones(5, 4).long(), r"torch.int64 \[5, 4\]"),
        (torch.ones(5).bool(), r"torch.bool \[5\]"),
        (torch.ones(5, 4, 1).bool(), r"torch.bool \[5, 4, 1\]"),
        ([[True] * 4] * 5, "a list"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(mask, given):
    with pytest.raises(ValueError, match=rf"mask is {given}; it must be a bool tensor of the shape \[5, 4\]."):
        check_mask(mask, torch.Size([5, 4]))


def test_a_forward_pass_checks_its_mask():
    with pytest.raises(ValueError, match="mask is"):
        TimeDistributed(nn.Identity())(torch.zeros(5, 4), mask=torch.ones(5, 4, 1).bool())


class Returns(nn.Module):
    """Returns what a function makes of the frames."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, frames, *others):
        return self.function(frames)


@pytest.mark.parametrize(
    "make", [lambda x: {x}, lambda x: deque([x]), lambda x: UserDict(x=x), lambda x: {1: x}.values()]
)
def test_tensors_in_collections_that_are_not_folded_are_refused(make):
    frames = torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"inputs\[1\] is a \w+ of tensors; put them into a tuple, list or dict."):
        TimeDistributed(Returns(lambda x: x))(frames, make(frames))
    with pytest.raises(ValueError, match=r"output\[1\] is a \w+ of tensors; put them into a tuple, list or dict."):
        TimeDistributed(Returns(lambda x: (x, make(x))))(frames)


def test_values_other_than_tensors_must_be_the_same_for_all_chunks():
    frames = torch.zeros(5, 1)
    assert TimeDistributed(Returns(lambda x: (x, "name", None)), chunk=3)(frames)[1:] == ("name", None)
    with pytest.raises(ValueError, match="One chunk returns 2 and another 3; return a tensor with a value per frame."):
        TimeDistributed(Returns(lambda x: (x, len(x))), chunk=3)(frames)


def test_importing_it_imports_torch_and_nothing_heavier():
    program = "import sys; from quadrant_lstm import ConvLSTM, TimeDistributed, describe; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert "torch" in packages
    assert not packages & {"lightning", "hydra", "torchvision", "torchmetrics", "matplotlib", "PIL"}

"""Compares TimeDistributed with a loop over the frames, one at a time."""

import copy
import itertools
from typing import NamedTuple

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from quadrant_lstm import TimeDistributed


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
        vector = self.linear(extra["vectors"][0] * extra["vectors"][1] * factor) + bias
        return Features(self.conv(image).tanh(), [{"vector": vector, "factor": factor}, vector.sum(1)])


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


@settings(max_examples=25, deadline=None)
@given(
    leading=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    chunk=st.none() | st.integers(1, 7),
    checkpoint=st.booleans(),
    masked=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_results_and_gradients_equal_a_loop_over_the_frames(leading, chunk, checkpoint, masked, seed):
    torch.manual_seed(seed)
    module = Nested()
    distributed = TimeDistributed(module, len(leading), chunk, checkpoint)
    extra = {"vectors": [torch.randn(*leading, 3), torch.randn(*leading, 3)]}
    image, bias, mask = torch.randn(*leading, 1, 5, 4), torch.randn(*leading, 2), torch.rand(leading) >= masked
    features = distributed(image, extra, factor=2.0, bias=bias, mask=mask if masked else None)
    assert isinstance(features, Features)
    assert features.parts[0]["factor"] == 2.0
    found = [features.image, features.parts[0]["vector"], features.parts[1]]
    expected = loop(module, image, extra, bias, mask)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, module), gradients(expected, module))


def test_permuted_inputs_and_an_empty_batch_are_folded():
    frames = torch.randn(4, 1, 8, 6, 5).permute(4, 0, 1, 2, 3)
    torch.testing.assert_close(TimeDistributed(nn.Flatten())(frames), frames.flatten(2))
    assert TimeDistributed(nn.Linear(2, 3), chunk=2)(torch.zeros(0, 4, 2)).shape == (0, 4, 3)


def test_masked_frames_enter_no_batch_statistics():
    frames, mask = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, False, False]])
    found, expected = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    outputs = TimeDistributed(found)(frames, mask=mask)
    torch.testing.assert_close(outputs[mask], expected(frames[mask]))
    TimeDistributed(found)(frames, mask=torch.zeros_like(mask))
    torch.testing.assert_close(found.state_dict(), expected.state_dict())
    assert found.training


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(2), nn.BatchNorm2d(2, momentum=None)])
def test_recomputed_frames_change_buffers_once(norm):
    torch.manual_seed(0)
    frames = torch.randn(2, 3, 1, 6, 6)
    modules = [nn.Sequential(nn.Conv2d(1, 2, 3), copy.deepcopy(norm), nn.Dropout()) for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    for module, checkpoint in zip(modules, (False, True), strict=True):
        for seed in range(2):
            torch.manual_seed(seed)  # dropout draws the same mask
            loss = TimeDistributed(module, checkpoint=checkpoint)(frames).square().sum()
            loss.backward(retain_graph=True)
            loss.backward()  # the graph that was retained is computed once more
    torch.testing.assert_close(modules[0].state_dict(), modules[1].state_dict())
    torch.testing.assert_close(*([parameter.grad for parameter in module.parameters()] for module in modules))


class Returns(nn.Module):
    """Returns what a function makes of the frames, whose numbers it records."""

    def __init__(self, function=lambda frames: frames):
        super().__init__()
        self.function, self.counts = function, []

    def forward(self, frames):
        self.counts.append(len(frames))
        return self.function(frames)


@pytest.mark.parametrize(("chunk", "counts"), [(20, [20]), (19, [10, 10]), (10, [10, 10]), (7, [7, 7, 6])])
def test_chunks_have_nearly_equal_numbers_of_frames_and_no_masked_ones(chunk, counts):
    module, frames = Returns(), torch.randn(5, 4, 2)
    torch.testing.assert_close(TimeDistributed(module, chunk=chunk)(frames), frames)
    TimeDistributed(module)(frames, mask=torch.arange(20).view(5, 4) < 7)
    assert module.counts == [*counts, 7]
    for steps in range(2, 20):
        TimeDistributed(module, chunk=3)(frames.new_zeros(1, steps, 2))
    assert min(module.counts) > 1  # batch norm over vectors needs two frames at once


def test_values_other_than_tensors_must_be_the_same_for_all_chunks():
    frames = torch.zeros(5, 1)
    assert TimeDistributed(Returns(lambda x: (x, "name", None)), chunk=3)(frames)[1:] == ("name", None)
    with pytest.raises(ValueError, match=r"3 is \(2,\) in another chunk; return a tensor with a value per frame."):
        TimeDistributed(Returns(lambda x: (x, len(x))), chunk=3)(frames)


def test_a_mask_is_bool(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in a run, whose shapes are not checked
    with pytest.raises(ValueError, match="mask is of torch.float32; give a bool tensor, true for real frames."):
        TimeDistributed(nn.Identity())(torch.zeros(5, 4), mask=torch.ones(5, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TimeDistributed(nn.Identity())(torch.zeros(3)),
         r"the inputs have the shapes \[3\]; all must begin with the same 2 axes, the batch and the steps.$"),
        (lambda: TimeDistributed(nn.Identity(), 3)(torch.zeros(5, 4, 3), {"a": [torch.zeros(5, 2, 3)]}),
         r"the inputs have the shapes \[5, 4, 3\], \[5, 2, 3\]; all must begin with the same 3 axes"),
        (lambda: TimeDistributed(nn.Identity())(1), "all must begin with the same 2 axes"),
        (lambda: TimeDistributed(nn.Identity())(torch.zeros(5, 4), mask=torch.ones(5).bool()),
         r"the inputs have the shapes \[5, 4\], \[5\]; all must"),
        (lambda: TimeDistributed(nn.LSTM(3, 2))(torch.zeros(2, 3, 4, 3)),
         r"unflatten: Provided sizes \[2, 3\] don't multiply up to the size of dim 0 \(1\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        call()


def test_an_error_of_the_module_tells_how_the_axes_were_read():
    with pytest.raises(RuntimeError) as error:
        TimeDistributed(TimeDistributed(nn.Conv2d(1, 8, 3)), 3)(torch.zeros(8, 4, 3, 28, 28, 1))
    remedy = "If these are other axes, add a missing one with x.unsqueeze, or move one with x.movedim."
    assert error.value.__notes__ == [
        "TimeDistributed took the first 2 axes of [96, 28, 28, 1] for the batch and the steps, and gave Conv2d "
        f"[2688, 28, 1]. {remedy}",
        "TimeDistributed took the first 3 axes of [8, 4, 3, 28, 28, 1] for the batch and the steps, and gave "
        f"TimeDistributed [96, 28, 28, 1]. {remedy}",
    ]

import pytest
import torch
from torch import nn

from quadrant_lstm import TimeDistributed


def test_folding_steps_into_the_batch_equals_a_loop_over_them():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten())
    frames = torch.randn(5, 4, 1, 8, 6)
    steps = torch.stack([module(frames[:, step]) for step in range(4)], dim=1)
    torch.testing.assert_close(TimeDistributed(module)(frames), steps)


def test_any_number_of_leading_axes_is_folded():
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    inputs = torch.randn(2, 3, 4, 5, 3)
    expected = torch.stack([torch.stack([module(row) for row in image]) for image in inputs.flatten(0, 1)])
    for num_axes in (2, 3, 4):
        outputs = TimeDistributed(module, num_axes)(inputs)
        assert outputs.shape == (2, 3, 4, 5, 2)
        torch.testing.assert_close(outputs.flatten(0, 1), expected)


def test_nested_modules_fold_one_step_axis_each():
    inner = TimeDistributed(nn.Flatten())
    assert TimeDistributed(inner)(torch.zeros(2, 3, 4, 5, 6)).shape == (2, 3, 4, 30)


def test_too_few_axes_are_refused():
    with pytest.raises(ValueError, match=r"inputs: \[3\] has fewer than the 2 leading axes to fold"):
        TimeDistributed(nn.Identity())(torch.zeros(3))
    with pytest.raises(ValueError, match="num_axes: 0 is less than 1"):
        TimeDistributed(nn.Identity(), num_axes=0)

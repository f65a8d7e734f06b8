"""ConvLSTM by itself; tests/docs/test_keras_page.py compares it with that of Keras."""

import pytest
import torch

from quadrant_lstm import ConvLSTM
from tests.scripts import call_unchecked


def layer(**options) -> ConvLSTM:
    torch.manual_seed(0)
    made = ConvLSTM(2, 3, 3, **options)
    torch.nn.init.normal_(made.bias)
    return made


def test_under_autocast_the_state_keeps_the_dtype_of_the_weights():
    """It sums over the steps."""
    with torch.autocast("cpu", torch.bfloat16):
        _, (_, c) = layer()(torch.randn(1, 2, 2, 5, 5))
    assert c.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvLSTM(2, 3, 2), "kernel_size 2 is not an odd number"),
        (lambda: layer()(torch.zeros(2, 4, 3, 7, 6)), r"frames have the shape \[2, 4, 3, 7, 6\]; expected"),
        (lambda: ConvLSTM(1, 2, 5, "valid")(torch.zeros(1, 1, 1, 4, 9)), "frames of 4 x 9 are smaller than the kernel"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def check_pair() -> None:
    with pytest.raises(ValueError, match=r"kernel_size \(3, 3\) is not an odd number"):
        ConvLSTM(2, 3, (3, 3))


def test_a_pair_of_kernel_sizes_is_refused():
    call_unchecked(check_pair)

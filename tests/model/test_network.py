"""Tests the network of the question, its parts, and the network as it was posted."""

import copy

import pytest
import torch

from quadrant_lstm.errors import UserError
from quadrant_lstm.model.encoder import RowsEncoder
from quadrant_lstm.model.network import Dropout, Reshaped
from tests.networks import question_network


def test_the_network_of_the_question_has_93718_parameters():
    # conv 3*3*1*32+32, conv 3*3*32*32+32, LSTM 4*5*(4160+5+2), dense 5*50+50, head 50*10+10
    assert sum(p.numel() for p in question_network().parameters()) == 320 + 9248 + 83340 + 300 + 510 == 93718


def test_every_step_reaches_the_logits_of_its_own_sample_in_its_order():
    torch.manual_seed(0)
    network, frames = question_network().eval(), torch.randn(3, 4, 1, 56, 14, requires_grad=True)
    network(frames)[1].sum().backward()
    assert (frames.grad[1].abs().sum(dim=(1, 2, 3)) > 0).all()
    assert frames.grad[[0, 2]].abs().sum() == 0
    assert not torch.allclose(network(frames), network(frames.flip(1)))


def test_a_kernel_or_pool_larger_than_its_input_is_refused_with_the_stage_and_the_input():
    with pytest.raises(UserError, match=r"model.kernel_size: 9 does not fit stage conv2, whose input is 32 x 48 x 6 "):
        question_network(kernel_size=9)
    with pytest.raises(UserError, match=r"model.pool_size: 11 does not fit stage pool, whose input is 32 x 52 x 10 "):
        question_network(pool_size=11)
    assert question_network(pool_size=10)(torch.zeros(1, 4, 1, 56, 14)).shape == (1, 10)


@pytest.mark.parametrize("p", [0.001, 0.25, 0.999])
def test_dropout_drops_a_share_of_p_independently_and_keeps_the_mean(p):
    torch.manual_seed(0)
    inputs = torch.ones(4000, 250, requires_grad=True)
    outputs = Dropout(p)(inputs)
    kept = outputs != 0
    assert abs(kept.float().mean().item() - (1 - p)) < 0.004
    assert abs(outputs.mean().item() - 1) < 0.05
    assert len(outputs[kept].unique()) == 1
    if p == 0.25:
        correlations = torch.corrcoef(kept[:, :64].float().T) - torch.eye(64)
        assert correlations.abs().max() < 0.1
    outputs.sum().backward()
    assert torch.equal(inputs.grad, outputs.detach())


def test_dropout_is_reproducible_and_does_nothing_in_eval_or_at_zero():
    inputs = torch.ones(100)
    torch.manual_seed(3)
    first = Dropout(0.5)(inputs)
    torch.manual_seed(3)
    assert torch.equal(first, Dropout(0.5)(inputs))
    assert Dropout(0.5).eval()(inputs) is inputs
    assert Dropout(0.0)(inputs) is inputs


def test_rows_are_read_pixel_by_pixel_and_then_from_top_to_bottom():
    torch.manual_seed(0)
    encoder, frames = RowsEncoder(2, 3), torch.randn(4, 2, 5, 6)
    rows = []
    for row in range(5):
        pixels = frames[:, :, row].transpose(1, 2)  # [N, W, C]
        rows.append(super(type(encoder.rows), encoder.pixels.module).forward(pixels)[0][:, -1])
    outputs, _ = super(type(encoder.rows), encoder.rows).forward(torch.stack(rows, dim=1))
    torch.testing.assert_close(encoder(frames), outputs[:, -1])


def test_after_a_reshape_the_steps_are_channels_whose_order_is_lost():
    torch.manual_seed(0)
    network = Reshaped((1, 56, 14), 10, 4, [32, 32], 3, 2, 0.25, 5, 50).eval()
    frames, order = torch.randn(2, 4, 1, 56, 14), [2, 0, 3, 1]
    other = copy.deepcopy(network)
    other.encoder.conv1.weight.data = network.encoder.conv1.weight[:, order]
    torch.testing.assert_close(other(frames[:, order]), network(frames))
    assert network.recurrent.input_size == 32 * 5  # a row of the maps

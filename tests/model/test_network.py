import pytest
import torch

from quadrant_lstm.errors import UserError
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

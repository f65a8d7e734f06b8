import pytest
import torch

from quadrant_lstm.errors import UserError
from quadrant_lstm.model.sizes import encoder_stages
from tests.networks import question_network


def test_the_network_of_the_question_has_its_parameters():
    # conv 3*3*1*32+32, conv 3*3*32*32+32, LSTM 4*5*(4160+5+2), dense 5*50+50, head 50*10+10
    assert sum(p.numel() for p in question_network().parameters()) == 320 + 9248 + 83340 + 300 + 510 == 93718


def test_every_step_reaches_the_logits():
    torch.manual_seed(0)
    frames = torch.randn(1, 4, 1, 56, 14, requires_grad=True)
    question_network().eval()(frames).sum().backward()
    assert (frames.grad.abs().sum(dim=(0, 2, 3, 4)) > 0).all()


def test_samples_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    frames = torch.randn(3, 4, 1, 56, 14, requires_grad=True)
    question_network().eval()(frames)[1].sum().backward()
    assert frames.grad[1].abs().sum() > 0
    assert frames.grad[[0, 2]].abs().sum() == 0


def test_the_order_of_the_steps_matters():
    torch.manual_seed(0)
    network = question_network().eval()
    frames = torch.randn(1, 4, 1, 56, 14)
    assert not torch.allclose(network(frames), network(frames.flip(1)))


@pytest.mark.parametrize("kind", ["lstm", "gru", "mean", "last", "concat"])
def test_what_it_says_after_the_last_step_is_what_it_says(kind):
    torch.manual_seed(0)
    network = question_network(recurrent=kind).eval()
    frames = torch.randn(3, 4, 1, 56, 14)
    steps = network.logits_per_step(frames)
    assert steps.shape == (3, 1 if kind == "concat" else 4, 10)
    torch.testing.assert_close(steps[:, -1], network(frames))
    later = frames.clone()
    later[:, 2:] = 0  # what comes after a step changes nothing of it
    torch.testing.assert_close(network.logits_per_step(later)[:, :2], steps[:, :2]) if kind != "concat" else None


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    network = question_network(dropout=0.5)
    frames = torch.randn(2, 4, 1, 56, 14)
    assert not torch.equal(network(frames), network(frames))
    network.eval()
    assert torch.equal(network(frames), network(frames))


def test_other_sizes_fit_together():
    network = question_network(
        frame_shape=(3, 20, 12), num_classes=4, filters=[5], kernel_size=2, pool_size=3, lstm_units=7, dense_units=6
    )
    assert network(torch.zeros(2, 4, 3, 20, 12)).shape == (2, 4)


def test_the_stages_of_the_question():
    assert encoder_stages((1, 56, 14), [32, 32], 3, 2) == {
        "conv1": (32, 54, 12),
        "conv2": (32, 52, 10),
        "pool": (32, 26, 5),
    }


def test_a_kernel_larger_than_what_is_left_names_the_stage_and_what_comes_in():
    with pytest.raises(
        UserError, match=r"model.kernel_size: 9 does not fit stage conv2: what comes in is 32 x 48 x 6 "
    ):
        question_network(kernel_size=9)


def test_a_pool_to_nothing_names_the_stage_and_the_most_it_can_be():
    with pytest.raises(
        UserError, match=r"model.pool_size: 11 leaves nothing at stage pool: .* 32 x 52 x 10 .* at most 10"
    ):
        question_network(pool_size=11)
    assert question_network(pool_size=10)(torch.zeros(1, 4, 1, 56, 14)).shape == (1, 10)

import pytest
import torch

from quadrant_lstm import ORDERINGS, TimeDistributed, sequences
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.deep import DeepCNNLSTM, EachQuadrant, PaddedEncoder
from quadrant_lstm.model.time_distributed import in_full


@pytest.fixture
def images():
    return torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("orderings", [ORDERINGS, ((1, 2, 3, 4),), ((2, 1, 4, 3), (2, 3, 1, 4), (4, 3, 2, 1))])
def test_encoding_each_quadrant_once_is_encoding_every_place_of_every_frame(orderings, images):
    torch.manual_seed(0)
    encoder = PaddedEncoder((1, 6, 6), [[4], [5, 6]]).eval()
    frames = sequences(images, orderings)
    places = frames.unflatten(3, (len(orderings), 6)).transpose(2, 3)  # sample, step, place, channels, rows, columns
    every = TimeDistributed(encoder, num_axes=3)(places).permute(0, 1, 2, 4, 5, 3).flatten(2)
    once = EachQuadrant(encoder, orderings)
    torch.testing.assert_close(once(frames), every)
    with in_full(once):
        torch.testing.assert_close(once(frames), every)
        once(frames + torch.rand_like(frames))  # which follow nothing
    gradient = torch.randn_like(every)
    (expected,) = torch.autograd.grad(every, encoder.conv1_1.weight, gradient)
    (found,) = torch.autograd.grad(once(frames), encoder.conv1_1.weight, gradient)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_each_of_four_quadrants_is_encoded_once(images):
    seen = []
    encoder = PaddedEncoder((1, 6, 6), [[4]])
    encoder.register_forward_hook(lambda module, inputs, outputs: seen.append(len(inputs[0])))
    EachQuadrant(encoder, ORDERINGS)(sequences(images))
    assert seen == [3 * 4]


def test_frames_of_other_orderings_are_refused(images):
    network = DeepCNNLSTM((1, 24, 6), 3, ORDERINGS, [[4]], 0.0, "lstm", 5)
    with pytest.raises(ValueError, match=r"frames: they do not follow data.orderings"):
        network(sequences(images, [(1, 2, 3, 4), (2, 1, 4, 3), (3, 4, 1, 2), (4, 3, 2, 1)]))


def test_every_step_reaches_the_logits(images):
    network = DeepCNNLSTM((1, 24, 6), 3, ORDERINGS, [[4]], 0.0, "lstm", 5).eval()
    network.encoder.check = lambda *_: None
    frames = sequences(images).requires_grad_()
    # each quadrant is read where it comes first: 1 and 4 in the first step, 2 and 3 in the second
    network(frames).sum().backward()
    assert (frames.grad.abs().sum(dim=(0, 2, 3, 4)) > 0).tolist() == [True, True, False, False]
    features = torch.randn(1, 4, network.recurrent.input_size, requires_grad=True)
    network.last_step(network.recurrent(features)).sum().backward()
    assert (features.grad.abs().sum(dim=(0, 2)) > 0).all()


def test_samples_do_not_mix(images):
    network = DeepCNNLSTM((1, 24, 6), 3, ORDERINGS, [[4], [4]], 0.0, "lstm", 5).eval()
    frames = sequences(images)
    torch.testing.assert_close(network(frames)[1:2], network(frames[1:2]))


def test_a_block_too_many_is_refused():
    with pytest.raises(UserError, match=r"model.blocks: 4 leave nothing at the pool of block 4: .* write at most 3"):
        DeepCNNLSTM((1, 24, 6), 3, ORDERINGS, [[2]] * 4, 0.0, "lstm", 5)

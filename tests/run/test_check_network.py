import re
from functools import partial

import pytest
import torch
from torch import nn

from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.data.orderings import SequenceSpec, numbered_names
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.encoder import Backbone, PooledEncoder
from quadrant_lstm.model.time_distributed import TimeDistributed
from quadrant_lstm.run.build import check_network, instantiate_node, unreached_weights
from tests.networks import Pooled, join, small_network

RESNET = partial(Backbone, name="resnet18", weights=None, frozen=False, lr_factor=1.0, size=None)


class Own(nn.Module):
    """Returns what `change` makes of its logits."""

    def __init__(self, change=lambda logits: logits, per_step=None):
        super().__init__()
        self.linear, self.change = nn.Linear(64, 3), change
        if per_step:
            self.logits_per_step = lambda frames: per_step(self(frames))

    def forward(self, frames):
        return self.change(self.linear(frames.flatten(1)))


class InAList(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [Own()]

    def forward(self, frames):
        return self.layers[0](frames)


def data_of(frame_shape) -> SequenceDataModule:
    spec = SequenceSpec(frame_shape, 4, numbered_names(3))
    return SequenceDataModule(spec, range(16), range(1), torch.arange(0), batch_size=16, seed=0)


def check(network, frame_shape=(1, 4, 4), pads=False, summary=""):
    data = data_of(frame_shape)
    data.pads, data.summary, data.origin = pads, summary, "by hand"
    check_network(network, data)


def refused(network, pads=False) -> str:
    with pytest.raises(UserError) as error:
        check(network, pads=pads)
    return str(error.value)


@pytest.mark.parametrize(
    ("encoder", "units", "words"),
    [
        (Pooled, 800, r"in recurrent: .*, or write e\.g\. model\.recurrent\.units=16"),
        (partial(PooledEncoder, filters=[256, 256], grid=[1, 1]), 3, "in encoder: .* choose a smaller model/encoder"),
        (RESNET, 3, r"in encoder: .* choose a smaller model/encoder, or write model\.encoder\.frozen=true"),
    ],
)
def test_a_warning_of_overfitting_names_the_largest_part(encoder, units, words, caplog):
    with caplog.at_level("INFO"):
        check(join("lstm", encoder, (1, 6, 6), units), (1, 6, 6), summary="16 clips of 3 classes")
    *_, counts, warning = caplog.messages
    assert re.fullmatch(r"data: 16 clips of 3 classes; [\d,]+ parameters are trained; by hand", counts)
    assert re.fullmatch(rf"model: .* million parameters for 16 training clips, .* million of them {words}", warning)


def test_a_network_with_noise_needs_no_equal_logits():
    check(Own(lambda logits: logits + torch.rand_like(logits)))
    check(Own(torch.Tensor.double, per_step=lambda logits: logits.float()[:, None]))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_a_network_with_weight_norm_is_copied():
    network = Own()
    network.linear = nn.utils.weight_norm(network.linear)
    check(network)


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (nn.Conv2d(2, 3, 3, stride=2, padding=1), (1, 1)),
        (nn.Conv2d(2, 3, 3, stride=3, padding=1), (4, 2)),
        (nn.Conv2d(2, 3, (5, 1), padding="same"), (2, 7)),
        (nn.Conv2d(2, 4, 3, padding=2, dilation=2, groups=2), (2, 5)),
        (nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate"), (1, 1)),
        (nn.Conv2d(2, 3, 3, padding=1), (6, 6)),
    ],
)  # fmt: skip
def test_unreached_weights_are_those_whose_gradients_are_always_0(conv, size):
    network = TimeDistributed(nn.Sequential(conv, nn.Flatten(), nn.LazyLinear(3)))
    data = data_of((2, *size))
    network(frames := torch.rand(5, 4, 2, *size))
    unreached = dict(unreached_weights(network, data))
    (gradient,) = torch.autograd.grad(network(frames).square().sum(), conv.weight)
    expected = gradient.count_nonzero((0, 1)) == 0
    assert torch.equal(unreached.get(conv.weight, torch.tensor(False)).expand(1, 1, *expected.shape)[0, 0], expected)
    assert (conv.weight in unreached) == expected.any()


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_kernels_that_are_computed_from_others_are_not_changed():
    conv = nn.utils.weight_norm(nn.Conv2d(1, 2, 3, stride=2, padding=1))
    assert unreached_weights(TimeDistributed(nn.Sequential(conv, nn.Flatten())), data_of((1, 1, 1))) == []


RETURNED = "model: Own was given [2, 4, 1, 4, 4] and returned "
NO_GRADIENT = "model: no gradient leads from logits of "


@pytest.mark.parametrize(
    ("network", "line"),
    [
        (Own(lambda logits: (logits, None)), f"{RETURNED}([2, 3], None); it must return logits [N, classes], "),
        (Own(torch.sum), f"{RETURNED}[]; "),
        (Own(lambda logits: logits[:, :2]), f"{RETURNED}[2, 2]; "),
        (Own(lambda logits: logits[:, None].expand(-1, 4, -1)),
         f"{RETURNED}[2, 4, 3]; it must return logits [N, classes], here [2, 3]; x[:, -1] takes the last step."),
        (Own(per_step=lambda logits: logits),
         f"{RETURNED}[2, 3]; it must return logits [N, steps, classes] from logits_per_step."),
        (Own(per_step=lambda logits: logits[:, None, :, None]), f"{RETURNED}[2, 1, 3, 1]; it must return logits [N, s"),
        (Own(per_step=lambda logits: logits[:, None].expand(-1, 5, -1)),
         f"{RETURNED}[2, 5, 3]; it must return logits [N, steps, classes] from logits_per_step."),
        (Own(per_step=lambda logits: 2 * logits[:, None]),
         "model: Own.forward returns other logits than the last ones of logits_per_step, which are tested; let both"),
        (Own(torch.Tensor.detach), f"{NO_GRADIENT}Own to parameters; compute them in layers that are its att"),
        (InAList(), f"{NO_GRADIENT}InAList to parameters; compute them in layers that are its att"),
        (nn.Sequential(nn.Linear(5, 3)), "model: 0 (Linear) was given [N=2, T=4, 1, 4, 4]; it expects [..., 5]. Make"),
    ],
)  # fmt: skip
def test_a_network_must_return_logits_that_can_be_trained(network, line):
    assert refused(network).startswith(line)
    check(Own(per_step=lambda logits: logits[:, None]))


class ReadsPadding(Own):
    """Returns the logits of the last real step, but as the last ones of all steps those of the padding."""

    def forward(self, frames, lengths=None):
        last = torch.full((len(frames),), frames.shape[1]) if lengths is None else lengths
        return self.logits_per_step(frames)[torch.arange(len(frames)), last - 1]

    def logits_per_step(self, frames, lengths=None):
        return self.linear(frames.cumsum(1).flatten(2).repeat(1, 1, 4) + torch.arange(4)[:, None])


def test_the_last_logits_are_those_of_the_last_real_step():
    check(ReadsPadding())
    assert "returns other logits than the last ones of logits_per_step" in refused(ReadsPadding(), pads=True)


class Fails(Own):
    def __init__(self, in_init=False, in_training=False):
        super().__init__()
        self.in_training = in_training
        if in_init:
            raise KeyError("units")  # in __init__

    def forward(self, frames):
        if self.training == self.in_training:
            raise KeyError("steps")  # in forward
        return super().forward(frames)


def line_of(comment: str) -> int:
    with open(__file__) as file:
        return next(number for number, line in enumerate(file, start=1) if line.endswith(f"  # {comment}\n"))


def test_an_error_in_the_users_code_keeps_its_type_and_names_its_line():
    place = f"model: {__file__}, line {line_of('in forward')}: "
    assert refused(Fails()) == f"{place}Fails was given [N=2, T=4, 1, 4, 4]: KeyError: 'steps'"
    assert refused(Fails(in_training=True)) == f"{place}KeyError: 'steps'"
    with pytest.raises(UserError) as error:
        instantiate_node("model", {"_target_": f"{__name__}.Fails", "in_init": True})
    assert str(error.value) == f"model: {__file__}, line {line_of('in __init__')}: KeyError: 'units'"
    network = Own()
    network.linear = nn.Linear(16, 3)
    rule = "linear (Linear) was given [N=2, 16*T=64]; it expects [..., 16]. Make the layer for inputs of size 64, or "
    assert re.match(rf"model: {re.escape(__file__)}, line \d+: {re.escape(rule)}", refused(network))


class ReadsSamplesAsSteps(Own):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(16, 16)

    def forward(self, frames, lengths=None):
        return super().forward(self.gru(frames.flatten(2))[0])


def test_a_layer_that_reads_samples_as_steps_is_warned_of(caplog):
    check(ReadsSamplesAsSteps(), pads=True)
    warning = "model: gru (GRU) reads samples as steps; make it with batch_first=True."
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [warning]


def test_a_network_that_fits_is_described_and_stays_as_it_is(caplog):
    caplog.set_level("INFO")
    network, random = small_network().train(), torch.get_rng_state()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    check(network, (1, 32, 8))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert re.search(r"^head +Linear +\[N, 3\] +15$", caplog.text, re.MULTILINE)
    assert network.training
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)


def test_padded_clips_need_a_network_that_takes_lengths():
    assert refused(Own(), pads=True) == (
        "model: Own.forward has no argument lengths, but clips are padded; write a data.num_frames that no clip is "
        "shorter than, choose another model, or add it."
    )
    network = small_network()
    network.recurrent = nn.GRU(16, 4, batch_first=True)
    assert refused(network, pads=True).startswith("model: GRU.forward has no argument lengths, but clips are padded; ")

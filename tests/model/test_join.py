import itertools
import re
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.transforms.functional import normalize

from quadrant_lstm import ORDERINGS, TimeDistributed, sequences
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.encoder import Backbone, ConvEncoder, PaddedEncoder, PooledEncoder, RowsEncoder, TimmBackbone
from quadrant_lstm.model.network import Join, feature_shape
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.model.shared_tiles import SharedTiles
from tests.networks import RECURRENT, question_network

CONV = partial(ConvEncoder, filters=[4, 6], kernel_size=3, pool_size=2)
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
ENCODERS = {
    "conv": CONV,
    "padded": partial(PaddedEncoder, blocks=[[4], [6]]),
    "pooled": partial(PooledEncoder, filters=[4, 6], grid=[2, 3]),
    "resnet": lambda in_channels: backbone(in_channels=in_channels),
    "rows": partial(RowsEncoder, row_units=4),
    "vector": lambda in_channels: nn.Sequential(nn.Flatten(), nn.LazyLinear(7)),
}


def backbone(name="resnet18", weights=None, kind=Backbone, in_channels=3, frozen=False, size=None) -> Backbone:
    return kind(in_channels, name, weights, frozen, 1.0, size)


def join(encoder=CONV, recurrent=LSTM, shared_tiles=False, **changes) -> Join:
    torch.manual_seed(0)
    sizes = {"dropout": 0.0, "lstm_units": 5, "dense_units": 4, "differences": False} | changes
    return Join((1, 56, 14), 3, 4, ORDERINGS, encoder, recurrent, shared_tiles=shared_tiles, **sizes).eval()


@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize(
    ("encoder", "recurrent"), [*((name, "lstm") for name in ENCODERS), *(("conv", name) for name in RECURRENT)]
)
def test_any_encoder_and_recurrent_layer_are_joined_and_only_real_earlier_steps_count(encoder, recurrent, differences):
    network = join(ENCODERS[encoder], RECURRENT[recurrent], differences=differences)
    frames, lengths = torch.rand(3, 4, 1, 56, 14), torch.tensor([4, 1, 3])
    logits, steps = network(frames), network.logits_per_step(frames)
    assert steps.shape == (3, 1 if recurrent in ("concat", "bilstm") else 4, 3)
    torch.testing.assert_close(steps[:, -1], logits)
    for number, length in enumerate(lengths.tolist() if recurrent != "concat" else []):
        alone = network(frames[number : number + 1, :length])
        torch.testing.assert_close(network(frames, lengths)[number], alone[0])
        if steps.shape[1] > 1:  # it does not see later steps
            torch.testing.assert_close(steps[number, length - 1], alone[0])


def test_the_question_is_one_choice_of_encoder_and_recurrent_layer():
    torch.manual_seed(1)
    question = question_network(num_classes=3, dense_units=4, shared_tiles=True).eval()
    same = join(partial(ConvEncoder, filters=[32, 32], kernel_size=3, pool_size=2), shared_tiles=True)
    same.load_state_dict(question.state_dict())
    frames = sequences(torch.rand(2, 1, 28, 28))
    assert isinstance(same.encoder, SharedTiles)
    for encoder in ("padded", "pooled"):
        assert type(join(ENCODERS[encoder], shared_tiles=True).encoder) is TimeDistributed
    torch.testing.assert_close(same(frames), question(frames))
    with pytest.raises(TypeError, match=r"got an unexpected keyword argument 'mask'"):
        same(frames, torch.tensor([4, 2]))
    assert same.in_full()(frames, torch.tensor([4, 2])).shape == (2, 3)


@pytest.mark.parametrize("shared_tiles", [False, True])
def test_the_recurrent_layer_may_read_how_features_differ_from_those_of_the_step_before(shared_tiles):
    network, frames = join(differences=True, shared_tiles=shared_tiles), sequences(torch.rand(2, 1, 28, 28))
    maps = network.encoder(frames)  # [2, 4, 6, 26, 5]
    both = torch.cat([maps[:, 2], maps[:, 2] - maps[:, 1]], dim=1)
    flat = both.permute(0, 2, 3, 1).flatten(1)  # channels last
    torch.testing.assert_close(network.features(frames)[:, 2], flat)
    assert not network.features(frames)[:, 0].unflatten(1, (26, 5, 12))[..., 6:].any()


@pytest.mark.parametrize("size", [(64, 64), (28, 28), (14, 7), (3, 50)])
def test_a_pooled_encoder_averages_the_maps_in_each_cell_of_its_grid(size):
    encoder = PooledEncoder(1, filters=[4, 6], grid=[2, 3]).eval()
    frames, (rows, columns) = torch.rand(2, 1, *size), (-(-size[0] // 4), -(-size[1] // 4))
    maps = nn.Sequential(*list(encoder)[:-1])(frames)
    assert maps.shape == (2, 6, rows, columns)
    for row, column in itertools.product(range(2), range(3)):
        high = slice(rows * row // 2, -(-rows * (row + 1) // 2))
        wide = slice(columns * column // 3, -(-columns * (column + 1) // 3))
        torch.testing.assert_close(encoder(frames)[:, :, row, column], maps[:, :, high, wide].mean((2, 3)))


def test_a_frozen_backbone_gets_no_gradients_and_keeps_its_statistics():
    encoder = partial(Backbone, name="resnet18", weights=None, frozen=True, lr_factor=1.0, size=None)
    network = Join((1, 56, 14), 3, 4, ORDERINGS, encoder, LSTM, 0.0, 5, 4, False, False)
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    for mode in (network, network.train()):  # that of a new network is the one in which it is trained
        mode(torch.rand(2, 4, 1, 56, 14)).sum().backward()
        torch.testing.assert_close(network.encoder.state_dict(), before, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in network.encoder.parameters())
    assert network.recurrent.weight_ih_l0.grad.abs().sum() > 0


def test_asking_for_the_features_leaves_each_layer_in_its_mode():
    encoder = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval())
    assert feature_shape(encoder, (1, 56, 14)) == (2, 54, 12)
    assert (encoder.training, encoder[0].training, encoder[1].training) == (True, True, False)


@pytest.mark.parametrize(
    ("name", "is_trained"),
    [("mobilenet_v3_small", False), ("vit_b_32", False), ("swin_t", False), ("googlenet", True)],
)  # googlenet without the classifiers for its own training
def test_any_classifier_of_torchvision_is_a_backbone(name, is_trained):
    with torch.device("meta"):
        encoder = backbone(name, in_channels=1, size=224).train(is_trained)
        assert encoder(torch.rand(2, 1, 56, 14)).ndim == 2


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "googlenet"])
def test_pretrained_weights_are_read_where_torchvision_keeps_them(name, tmp_path, monkeypatch):
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    file = tmp_path / "hub/checkpoints" / Path(get_model_weights(name).DEFAULT.url).name
    torch.save(get_model(name).state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    pretrained, loaded, frames = backbone(name, "DEFAULT").eval(), backbone(name).eval(), torch.rand(2, 3, 32, 32)
    original = get_model(name, weights="DEFAULT").eval()
    original.fc = nn.Identity()
    expected = original(normalize(frames, **IMAGENET))
    loaded.load_state_dict(pretrained.state_dict())
    torch.testing.assert_close((pretrained(frames), loaded(frames)), (expected, expected))


@pytest.mark.parametrize(
    ("kind", "name", "trained_with", "suffix"),
    [
        (Backbone, "shufflenet_v2_x0_5", IMAGENET, ".pth"),
        (TimmBackbone, "test_resnet", {"mean": [0.5] * 3, "std": [0.5] * 3}, ".safetensors"),
    ],
)
def test_weights_are_read_from_a_file_with_or_without_a_classifier(kind, name, trained_with, suffix, tmp_path):
    if kind is TimmBackbone:
        pytest.importorskip("timm")
    saved = backbone(name, kind=kind).eval()
    state, file = saved.module.state_dict(), tmp_path / f"weights{suffix}"
    for head in ({}, {"fc.weight": torch.zeros(7, 9), "fc.bias": torch.zeros(7)}):
        if suffix == ".pth":
            torch.save(state | head, file)
        else:
            pytest.importorskip("safetensors.torch").save_file(state | head, file)
        loaded, frames = backbone(name, str(file), kind).eval(), torch.rand(2, 3, 32, 32)
        torch.testing.assert_close(loaded(frames), saved.module(normalize(frames, **trained_with)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be used ([Errno 2] No such file"),
        (b"PK damaged", "cannot be used ("),
        ([1], "cannot be used ('list' object has no attribute 'items'); give a state dict of resnet18."),
        (
            {},
            'cannot be used (Error(s) in loading state_dict for ResNet: Missing key(s) in state_dict: "conv1.weight", ',
        ),
        ({"conv1.weight": torch.zeros(1)}, "cannot be used ("),
    ],
)
def test_a_file_that_holds_no_weights_of_the_network_is_refused(content, reason, tmp_path):
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(UserError, match=re.escape(f"model.encoder.weights: {file} {reason}")):
        backbone(weights=str(file))


@pytest.mark.parametrize(
    ("kind", "name", "weights", "message"),
    [
        (Backbone, "resnet81", None, "torchvision has no resnet81; write e.g. resnet"),
        (Backbone, "resnet18", "FOO", "has no FOO; write one of null, IMAGENET1K_V1, DEFAULT, or a file"),
        (Backbone, "squeezenet1_0", None, "squeezenet1_0 does not end in a linear layer"),
        (Backbone, "resnet18", "DEFAULT", r"resnet18 cannot be .* put the file of \S*pth into \S*/hub/checkpoints"),
        (TimmBackbone, "resnet81", None, "model.encoder.name: timm has no resnet81; write e.g. resnet"),
        (TimmBackbone, "hf-hub:somebody/model", None, "timm has no hf-hub:somebody/model; write e.g. resnet18."),
        (TimmBackbone, "test_resnet", "FOO", "test_resnet has no FOO; write one of null, DEFAULT, or a file"),
        (TimmBackbone, "test_resnet", "DEFAULT", "cannot be downloaded .*; give a file of its state dict, "),
    ],
)
def test_backbones_that_do_not_fit_are_refused(kind, name, weights, message, tmp_path, monkeypatch):
    if kind is TimmBackbone:
        pytest.importorskip("timm")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # where nothing listens
    with pytest.raises(UserError, match=message):
        backbone(name, weights, kind)


def test_without_timm_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"^model/encoder=timm: needs timm, which .* pip install -e \"\.\[timm\]\"$"):
        backbone(kind=TimmBackbone)


class OwnEncoder(nn.Conv2d):
    """Returns what `change` makes of its maps [N, 2, 54, 12]."""

    def __init__(self, in_channels, change):
        super().__init__(in_channels, 2, 3)
        self.change = change

    def forward(self, frames):
        return self.change(super().forward(frames))


@pytest.mark.parametrize(
    ("change", "returned"),
    [
        (lambda maps: (maps, None), "([2, 2, 54, 12], None)"),
        (lambda maps: maps[:1], "[1, 2, 54, 12]"),
        (lambda maps: maps.long(), "[2, 2, 54, 12]"),
    ],
)
def test_an_encoder_must_return_features_of_every_frame(change, returned):
    with pytest.raises(UserError) as error:
        join(partial(OwnEncoder, change=change))
    assert str(error.value) == (
        f"model.encoder: OwnEncoder was given [2, 1, 56, 14] and returned {returned}; it must return floats: maps "
        "[N, channels, height, width] or vectors [N, features]."
    )

"""Turns a classifier of torchvision into an encoder, which maps a frame to a vector of features."""

import difflib
from urllib.error import URLError

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from torch.hub import get_dir
from torch.nn.functional import interpolate
from torchvision.models import get_model, get_model_weights, list_models

from quadrant_lstm.errors import UserError


class Backbone(nn.Module):
    """Any classifier of torchvision.models, without its last linear layer. Maps a frame to a vector of features.

    Frames with one channel are repeated to three; `size`, in pixels, enlarges frames that are too small for it.
    `weights` are a name that torchvision knows, which are downloaded once, or null for random ones. Frames, of values
    from 0 to 1, are normalized as the weights were trained. With `frozen`, the weights get no gradients and batch norm
    uses and keeps its running statistics. Raises UserError for an unknown name, weights that cannot be downloaded, and
    frames of another size than a vision transformer reads.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, in_channels: int, name: str, weights: str | None, frozen: bool, size: int | None):
        super().__init__()
        if in_channels not in (1, 3):
            raise UserError(f"model.encoder.name: {name} reads 1 or 3 channels, not {in_channels}; choose another one.")
        self.name, self.frozen, self.size = name, frozen, size
        self.module, mean, std = load_pretrained(name, weights)
        for attribute, value in {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None}.items():
            if hasattr(self.module, attribute):  # GoogLeNet and Inception have more classifiers for their own training
                setattr(self.module, attribute, value)
        # in checkpoints, because a network is built from them without pretrained weights, which would tell these values
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        last = [path for path, layer in self.module.named_modules() if isinstance(layer, nn.Linear)]
        if not last:
            raise UserError(f"model.encoder.name: {name} does not end in a linear layer; choose another one.")
        self.module.set_submodule(last[-1], nn.Identity())
        if frozen:
            self.module.requires_grad_(False)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        if self.frozen:
            self.module.eval()
        return self

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        frames = frames.expand(-1, 3, -1, -1)
        if self.size:
            frames = interpolate(frames, size=(self.size, self.size), mode="bilinear", antialias=True)
        size = getattr(self.module, "image_size", None)  # of a vision transformer
        if size and frames.shape[2:] != (size, size):
            raise UserError(
                f"model.encoder.size: {self.size or 'null'}, but {self.name} reads frames of {size} x {size} only; "
                f"write model.encoder.size={size}."
            )
        return self.module((frames - self.mean) / self.std)


def load_pretrained(name: str, weights: str | None) -> tuple[nn.Module, list[float], list[float]]:
    """Returns the network, and the mean and standard deviation of each channel with which to normalize its frames."""
    names = list_models(torchvision.models)
    if name not in names:
        close = difflib.get_close_matches(name, names)
        raise UserError(f"model.encoder.name: torchvision has no {name}; write e.g. {(close or ['resnet18'])[0]}.")
    if weights is None:
        return get_model(name, weights=None), [0.0] * 3, [1.0] * 3
    choices = get_model_weights(name).__members__
    if weights not in choices:
        raise UserError(
            f"model.encoder.weights: {name} has no weights {weights}; write one of null, {', '.join(choices)}."
        )
    pretrained = choices[weights]
    try:
        network = get_model(name, weights=pretrained)
    except URLError as error:
        raise UserError(
            f"model.encoder.weights: {weights} of {name} cannot be downloaded ({error.reason}); put the file of "
            f"{pretrained.url} into {get_dir()}/checkpoints, or write null."
        ) from error
    transform = pretrained.transforms()
    return network, transform.mean, transform.std

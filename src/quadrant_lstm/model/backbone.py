"""Turns a classifier of torchvision into an encoder, which maps a frame to a vector of features."""

import difflib

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import get_model, list_models

from quadrant_lstm.errors import UserError


class Backbone(nn.Module):
    """Any classifier of torchvision.models, without its last linear layer. Maps a frame to a vector of features.

    Frames with one channel are repeated to three; `size`, in pixels, enlarges frames that are too small for it.
    `weights` are a name that torchvision knows, which are downloaded once, or null for random ones. With `frozen`, they
    get no gradients and batch norm uses and keeps its running statistics. Raises UserError for an unknown name,
    and for frames of another size than a vision transformer reads.
    """

    def __init__(self, in_channels: int, name: str, weights: str | None, frozen: bool, size: int | None):
        super().__init__()
        self.name = name
        if in_channels not in (1, 3):
            raise UserError(f"model.encoder.name: {name} reads 1 or 3 channels, not {in_channels}; choose another one.")
        if name not in list_models():
            close = difflib.get_close_matches(name, list_models())
            raise UserError(f"model.encoder.name: torchvision has no {name}; write e.g. {(close or ['resnet18'])[0]}.")
        try:
            self.module, self.frozen, self.size = get_model(name, weights=weights), frozen, size
        except KeyError:
            raise UserError(f"model.encoder.weights: {name} has no weights {weights}; write null or DEFAULT.") from None
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
        return self.module(frames)

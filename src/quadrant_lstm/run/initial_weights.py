"""Copies the weights of another run into a new network, as far as names and shapes match."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.run_folder import find_weights

log = logging.getLogger(__name__)
NETWORK = "network."  # of the names in a checkpoint
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # float8 needs scales, which are not in the file


def copy_weights(network: nn.Module, init: str) -> None:
    """Logs which weights have no counterpart. Raises UserError for a damaged file, for weights of another type or that
    are not finite, and if no weight fits.
    """
    file = find_weights(init)
    weights, own = read_weights(file), network.state_dict()
    fitting = {name: weight for name, weight in weights.items() if name in own and own[name].shape == weight.shape}
    if not fitting:
        raise UserError(f"init: {file} has no weight whose name and shape this network has; choose its model.")
    for name, weight in fitting.items():
        check_values(f"init: {file}: {name}", weight, own[name].dtype)
    network.load_state_dict(fitting, strict=False)
    log.info(f"init: copied {len(fitting)} of {len(own)} tensors from {file}")
    for name in (name for name in own if name not in fitting):
        shape = list(own[name].shape)
        reason = f"the file has {list(weights[name].shape)}" if name in weights else "the file has none"
        log.info(f"init: {name} {shape} keeps its initial values; {reason}")
    for name in (name for name in weights if name not in own):
        log.info(f"init: {name} {list(weights[name].shape)} of the file is not in this network")


def check_values(place: str, weight: Tensor, dtype: torch.dtype) -> None:
    if weight.dtype != dtype and not {weight.dtype, dtype} <= set(FLOATS):
        found, wanted = (str(each).removeprefix("torch.") for each in (weight.dtype, dtype))
        raise UserError(f"{place} is {found}, but {wanted} in this network; save it in that type.")
    if not weight.to(dtype).isfinite().all():
        raise UserError(f"{place} has values that are NaN or infinite; give the weights of an earlier epoch.")


def read_weights(file: Path) -> Mapping[str, Tensor]:
    if file.suffix != ".safetensors":
        state = read_checkpoint(file)["state_dict"]
        return {name.removeprefix(NETWORK): weight for name, weight in state.items() if name.startswith(NETWORK)}
    with needs_extra(f"init={file}", "export"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"init: {file} cannot be read ({error}); export it again.") from error

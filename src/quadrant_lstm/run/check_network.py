"""Calls a network before training starts, so that a mistake in it costs one line, with the place in the user's code."""

import copy
import logging

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from quadrant_lstm.config.check import takes
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.errors import UserError, place_in_own_code, with_type
from quadrant_lstm.model.describe import describe
from quadrant_lstm.model.protocols import as_argument, logits_after_steps, wrong_result

log = logging.getLogger(__name__)


def check_network(network: nn.Module, data: SequenceDataModule) -> None:
    """Logs the stages of the network, and a warning if a recurrent layer reads samples as steps. Raises UserError if
    the network does not map frames to logits that can be trained.
    """
    frames = torch.zeros(2, *data.batch_shape[1:])
    lengths = torch.tensor([frames.shape[1], 1]) if data.pads else None
    if data.pads and not takes(network.forward, "lengths"):
        raise UserError(
            f"model: {type(network).__name__}.forward has no argument lengths, but clips are padded; write a "
            "data.num_frames that no clip is shorter than, choose another model, or add the argument."
        )
    try:
        stages = describe(network, frames)
        with torch.random.fork_rng([]):
            copied = copy.deepcopy(network)
            check_logits(copied.eval(), frames, lengths, data.spec.num_classes)
            copied.train()(frames, **as_argument(lengths))  # may run other code
    except Exception as error:
        place = place_in_own_code(error)
        if isinstance(error, UserError) or not (place or isinstance(error, ValueError)):
            raise
        raise UserError(f"model: {place}{error if error.__cause__ else with_type(error)}") from error
    log.info(stages)
    for warning in stages.warnings():
        rank_zero_only(log.warning)(f"model: {warning}")


def check_logits(network: nn.Module, frames: Tensor, lengths: Tensor | None, num_classes: int) -> None:
    logits = network(frames, **as_argument(lengths))
    expected = (len(frames), num_classes)
    if not isinstance(logits, Tensor) or logits.shape != expected:
        last = "; x[:, -1] takes the last step" if isinstance(logits, Tensor) and logits.ndim == 3 else ""
        rule = f"logits [N, classes], here {list(expected)}{last}"
        raise wrong_result("model", network, frames, logits, rule)
    if not logits.requires_grad or not list(network.parameters()):
        raise UserError(
            f"model: the logits of {type(network).__name__} have no gradient of its parameters; compute them in layers "
            "that are its attributes or in an nn.ModuleList, not in a list, without detach() and torch.no_grad()."
        )
    steps = logits_after_steps(network, frames, lengths)
    if not isinstance(steps, Tensor) or steps.ndim != 3 or steps.shape[::2] != expected:
        raise wrong_result("model", network, frames, steps, "logits [N, steps, classes] from logits_per_step")

"""Calls a network before training starts, so that a mistake in it costs one line, with the place in the user's code."""

import copy
import functools
import logging
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from quadrant_lstm.errors import UserError, place_in_own_code, with_type
from quadrant_lstm.model.describe import describe
from quadrant_lstm.model.parts import wrong_result
from quadrant_lstm.model.protocols import logits_after_steps
from quadrant_lstm.run.memory import check_memory

log = logging.getLogger(__name__)
warn_once = functools.cache(rank_zero_only(log.warning))  # the jobs of a plan may have one network


def check_network(network: nn.Module, batch_shape: Sequence[int], num_classes: int, *memory: Any) -> None:
    """Logs the stages of the network, and a warning if a recurrent layer reads samples as steps. Raises UserError if
    the network does not map frames to logits that can be trained, or needs too much memory. `memory` are the other
    arguments of check_memory.
    """
    frames = torch.zeros(2, *batch_shape[1:])
    try:
        stages = describe(network, frames)
        with torch.random.fork_rng([]):
            check_logits(copy.deepcopy(network).eval(), frames, num_classes)
        check_memory(network, batch_shape, *memory)
    except Exception as error:
        place = place_in_own_code(error)
        if isinstance(error, UserError) or not (place or isinstance(error, ValueError)):
            raise
        raise UserError(f"model: {place}{error if error.__cause__ else with_type(error)}") from error
    log.info(stages)
    for warning in stages.warnings():
        warn_once(f"model: {warning}")


def check_logits(network: nn.Module, frames: Tensor, num_classes: int) -> None:
    logits, expected = network(frames), (len(frames), num_classes)
    if not isinstance(logits, Tensor) or logits.shape != expected:
        last = "; x[:, -1] takes the last step" if isinstance(logits, Tensor) and logits.ndim == 3 else ""
        rule = f"logits [N, classes], here {list(expected)}{last}"
        raise wrong_result("model", network, frames, logits, rule)
    if not logits.requires_grad:
        raise UserError(
            f"model: the logits of {type(network).__name__} have no gradient; compute them from parameters or layers "
            "that are attributes of the network, without detach() and torch.no_grad()."
        )
    steps = logits_after_steps(network, frames)
    if not isinstance(steps, Tensor) or steps.ndim != 3 or steps.shape[::2] != expected:
        raise wrong_result("model", network, frames, steps, "logits [N, steps, classes] from logits_per_step")

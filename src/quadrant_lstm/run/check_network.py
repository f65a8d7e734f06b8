"""Calls a network before training starts, so that a mistake in it costs one line, with the place in the user's code."""

import copy
import functools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from quadrant_lstm.config.check import takes
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.errors import UserError, place_in_own_code, with_type
from quadrant_lstm.model.describe import describe
from quadrant_lstm.model.protocols import as_argument, logits_after_steps, wrong_result
from quadrant_lstm.processes.launch import control_groups

# The memory of a training step
#
# The estimate is the size of the weights, their gradients and Adam's two moments, of all tensors saved for the backward
# pass, and of one gradient of the size of the largest of them, extrapolated from two small batches. On the networks of
# this project it is between 10 % too low and 20 % too high.


Autocast = Callable[[], AbstractContextManager[object]]
FEW, MANY = 8, 16  # images in the two batches


def check_memory(
    network: nn.Module, batch_shape: Sequence[int], device: torch.device, autocast: Autocast, num_processes: int = 1
) -> None:
    """Raises UserError if a training step of one batch needs more memory than is available.

    `num_processes` is the number of processes on this machine; on a CPU they share its memory.
    """
    available = available_bytes(device)
    if available is None:
        return
    if device.type == "cpu":
        available //= num_processes
    weights = 4 * sum(weight.nbytes for weight in network.parameters())  # weights, gradients, both moments of Adam
    per_image = bytes_per_image(network, batch_shape, device, autocast)
    needed = weights + batch_shape[0] * per_image
    if needed > available:
        largest = int((available - weights) / per_image) if per_image else 0
        remedy = f"write at most {2 ** (largest.bit_length() - 1)}" if largest > 0 else "choose a smaller model"
        raise UserError(
            f"data.batch_size: a training step of {batch_shape[0]:,} samples needs about {needed / 1e9:.1f} GB of "
            f"memory, and {available / 1e9:.1f} GB are available; {remedy}."
        )


def check_frame_memory(num_bytes: int, num_processes: int) -> None:
    """Raises UserError if the decoded frames of each process on this machine do not fit into its memory."""
    available = available_to_cpu()
    needed = num_bytes * num_processes
    if available is not None and needed > available:
        raise UserError(
            f"data.cache_gb: cached frames and batches that are read ahead need {needed / 1e9:.1f} GB "
            f"in all processes, and {available / 1e9:.1f} GB are available; write less, or smaller values of "
            "data.batch_size, data.num_frames or data.num_workers."
        )


def bytes_per_image(network: nn.Module, batch_shape: Sequence[int], device: torch.device, autocast: Autocast) -> float:
    copied = copy.deepcopy(network).to(device).train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # dropout draws random numbers
        few, many = (bytes_for_backward(copied, (size, *batch_shape[1:]), autocast) for size in (FEW, MANY))
    growing = Counter(many) - Counter(few)  # not weights, which autograd saves too
    return (sum(many) - sum(few)) / (MANY - FEW) + max(growing, default=0) / MANY


def bytes_for_backward(network: nn.Module, batch_shape: Sequence[int], autocast: Autocast) -> list[int]:
    """Returns the bytes of each tensor that autograd saves for the backward pass of one batch."""
    saved: dict[int, Tensor] = {}

    def save(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    weight = next(network.parameters())
    frames = torch.zeros(*batch_shape, dtype=weight.dtype, device=weight.device)
    with autocast(), torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        network(frames).sum()
    return [tensor.untyped_storage().nbytes() for tensor in saved.values()]


def available_bytes(device: torch.device) -> int | None:
    """Returns the free memory of the device, or None if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_to_cpu() if device.type == "cpu" else None


def available_to_cpu(root: Path = Path("/")) -> int | None:
    """Returns what Linux and the control groups of this process (cgroup v2) leave free; None outside Linux."""
    meminfo = root / "proc/meminfo"
    if not meminfo.exists():
        return None
    (free,) = (int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if "MemAvailable" in line)
    available = [free]
    for folder in control_groups(root):
        limit, used = folder / "memory.max", folder / "memory.current"
        if limit.exists() and limit.read_text().strip() != "max":
            available.append(int(limit.read_text()) - int(used.read_text()))
    return min(available)


# The check


log = logging.getLogger(__name__)
warn_once = functools.cache(rank_zero_only(log.warning))  # several jobs of a plan may have the same network


def check_network(
    network: nn.Module, data: SequenceDataModule, device: torch.device, autocast: Autocast, num_processes: int = 1
) -> None:
    """Logs the stages of the network, and a warning if a recurrent layer reads samples as steps. Raises UserError if
    the network does not map frames to logits that can be trained, or needs more memory than `num_processes` on this
    machine have.
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
            check_logits(copy.deepcopy(network).eval(), frames, lengths, data.spec.num_classes)
        check_memory(network, data.batch_shape, device, autocast, num_processes)
    except Exception as error:
        place = place_in_own_code(error)
        if isinstance(error, UserError) or not (place or isinstance(error, ValueError)):
            raise
        raise UserError(f"model: {place}{error if error.__cause__ else with_type(error)}") from error
    log.info(stages)
    for warning in stages.warnings():
        warn_once(f"model: {warning}")


def check_logits(network: nn.Module, frames: Tensor, lengths: Tensor | None, num_classes: int) -> None:
    logits = network(frames, **as_argument(lengths))
    expected = (len(frames), num_classes)
    if not isinstance(logits, Tensor) or logits.shape != expected:
        last = "; x[:, -1] takes the last step" if isinstance(logits, Tensor) and logits.ndim == 3 else ""
        rule = f"logits [N, classes], here {list(expected)}{last}"
        raise wrong_result("model", network, frames, logits, rule)
    if next(network.parameters(), None) is None:
        raise UserError(
            f"model: {type(network).__name__} has no parameters; assign its layers to attributes or to an "
            "nn.ModuleList, not to a list."
        )
    if not logits.requires_grad:
        raise UserError(
            f"model: the logits of {type(network).__name__} have no gradient; compute them from parameters or layers "
            "that are attributes of the network, without detach() and torch.no_grad()."
        )
    steps = logits_after_steps(network, frames, lengths)
    if not isinstance(steps, Tensor) or steps.ndim != 3 or steps.shape[::2] != expected:
        raise wrong_result("model", network, frames, steps, "logits [N, steps, classes] from logits_per_step")

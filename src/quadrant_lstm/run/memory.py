"""Estimates the memory of a training step before the first step, and refuses a batch size that does not fit.

The estimate is the size of the weights, their gradients and Adam's two moments, of all tensors saved for the backward
pass, and of one gradient of the size of the largest of them, extrapolated from two small batches. On the networks of
this project it is between 10 % too low and 20 % too high.
"""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from quadrant_lstm.errors import UserError
from quadrant_lstm.processes.launch import control_groups

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

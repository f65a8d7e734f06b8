"""Measures and draws a network's accuracy when a frame of each clip is occluded, or when frames are in another order.

If the order of the frames matters, the accuracy is lower with reversed or shuffled frames.
"""

import torch
from jaxtyping import Int64
from matplotlib.figure import Figure
from torch import Tensor, nn

from quadrant_lstm.dashboard.pictures.occlusion import is_correct
from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.model.protocols import real_steps
from quadrant_lstm.plotting import CORRECT, GROUP_COLOURS, new_figure, style


def accuracy(network: nn.Module, samples: Batch) -> float:
    return is_correct(network, *samples).float().mean().item()


def accuracy_by_occluded_step(network: nn.Module, samples: Batch) -> list[float]:
    found = []
    for step in range(samples.frames.shape[1]):
        frames = samples.frames.clone()
        frames[:, step] = 0
        found.append(accuracy(network, samples._replace(frames=frames)))
    return found


def accuracy_by_order(network: nn.Module, samples: Batch) -> dict[str, float]:
    """Returns the accuracy with the frames in order, in reverse order, and shuffled, the same way for all clips."""
    num_steps = samples.frames.shape[1]
    shuffled = torch.randperm(num_steps, generator=torch.Generator().manual_seed(0))
    ranks = {"in order": torch.arange(num_steps), "reversed": -torch.arange(num_steps), "shuffled": shuffled}
    return {name: accuracy(network, reorder(samples, rank)) for name, rank in ranks.items()}


def reorder(samples: Batch, ranks: Int64[Tensor, " steps"]) -> Batch:
    """Sorts the real frames of each clip by their ranks; padding stays at the end."""
    frames, _, lengths = samples
    ranks = ranks.expand(len(frames), -1)
    if lengths is not None:
        ranks = ranks.masked_fill(~real_steps(lengths, frames.shape[1]), ranks.max() + 1)
    places = ranks.argsort(dim=1, stable=True)
    return samples._replace(frames=frames[torch.arange(len(frames))[:, None], places])


@style
def draw_occluded_steps(by_step: list[float], by_order: dict[str, float], num_clips: int) -> Figure:
    """`by_step` has the accuracy with each frame occluded, `by_order` those with all frames."""
    figure = new_figure()
    axes = figure.subplots()
    axes.bar(range(1, len(by_step) + 1), [100 * share for share in by_step], color=CORRECT)
    for (name, share), colour in zip(by_order.items(), ("black", *GROUP_COLOURS[1:]), strict=False):
        axes.axhline(100 * share, color=colour, linestyle="--", label=f"{name}: {100 * share:.1f}")
    axes.set(xlabel="occluded frame (bars); all frames, in this order (lines):", ylim=(0, 105))
    axes.set_title(f"accuracy on {num_clips:,} test clips, %")
    figure.legend(loc="outside lower center", ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure

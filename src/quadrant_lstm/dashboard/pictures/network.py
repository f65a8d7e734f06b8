"""Draws the inside of a network, and its accuracy when a part of its input is occluded."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Num, UInt8
from matplotlib.figure import Figure
from torch import Tensor, nn

from quadrant_lstm import plotting
from quadrant_lstm.data.datamodule import Batch, num_at_once
from quadrant_lstm.data.orderings import QUADRANTS, frames_of, network_inputs, occlude_piece, ordering_name
from quadrant_lstm.kinds import Grid, Orderings
from quadrant_lstm.model.encoder import Backbone
from quadrant_lstm.model.protocols import Inspectable, real_steps
from quadrant_lstm.model.recurrent import StepClassifier
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.plotting import CORRECT, GREY, GROUP_COLOURS, HEIGHT, SMALL, WIDTH, new_axes, new_figure

# Inputs


CLIPS_AT_ONCE = 8  # that an encoder reads


def as_inputs(frames: Num[Tensor, "..."], network: Any) -> Float[Tensor, "..."]:
    """Scales pixels, and moves frames to the network's device and dtype, e.g. float64 at trainer.precision=64-true."""
    weights = next(network.parameters())
    return network_inputs(frames.to(weights.device), weights.dtype)


def as_arguments(samples: Batch, network: Any) -> tuple[Float[Tensor, "..."], dict[str, Tensor]]:
    """Returns the frames and the keyword arguments that the network is called with."""
    inputs = as_inputs(samples.frames, network)
    options = {"lengths": samples.lengths, "encoded": samples.features}
    return inputs, {name: value.to(inputs.device) for name, value in options.items() if value is not None}


# Filters of the first convolution, feature maps of all, and the gates of the LSTM


MAX_TICKS = 8
MAX_MAPS = 32  # drawn of one convolution
# of the values of lstm_step
TITLES = ("input gate", "forget gate", "cell candidate", "output gate", "cell state", "output")
GATES = ("input gate", "forget gate", "output gate")  # with values between 0 and 1


def feature_maps(network: Inspectable, frames: UInt8[Tensor, "1 steps channels height width"]) -> dict[str, Tensor]:
    """Returns the ReLU of each convolution's output [maps, rows, columns] for the frame with the largest sum of pixels,
    by the convolution's name; that frame, or the part of it that the encoder takes at once, is under "input".
    """
    network = network.in_full()
    seen: list[tuple[str, Tensor, Tensor]] = []
    for path, layer in network.encoder.named_modules():
        if isinstance(layer, nn.Conv2d):
            name = path.removeprefix("module.")
            layer.register_forward_hook(lambda _, inputs, outputs, name=name: seen.append((name, inputs[0], outputs)))
    with torch.inference_mode():
        network.encoder(as_inputs(frames, network))
    shown = seen[0][1]
    for backbone in (part for part in network.encoder.modules() if isinstance(part, Backbone)):
        shown = shown * backbone.std + backbone.mean  # it normalizes pixels
    fullest = int(shown.flatten(1).sum(1).argmax())
    return {"input": shown[fullest].clamp(0, 1)} | {name: outputs[fullest].relu() for name, _, outputs in seen}


def draw_features(network: Inspectable, frames: Num[Tensor, "1 steps ..."]) -> dict[str, Figure]:
    """Each map is scaled by its own largest value, because the maps differ too much for a common scale."""
    convs = [layer for layer in network.encoder.modules() if isinstance(layer, nn.Conv2d)]
    if not convs:
        return {}
    maps = feature_maps(network, frames)
    frame = maps.pop("input").permute(1, 2, 0).float().cpu().numpy()
    weights = convs[0].weight.detach().mean(1)
    figures = {"filters": draw_maps(weights, f"the {len(weights)} filters of the first convolution", "RdBu", frame)}
    for name, layer_maps in maps.items():
        part = f", the first {MAX_MAPS}" if len(layer_maps) > MAX_MAPS else ""
        figures[name] = draw_maps(layer_maps, f"{name}: {len(layer_maps)} feature maps{part}", "gray_r", frame)
    return figures


def draw_maps(maps: Float[Tensor, "maps rows columns"], title: str, cmap: str, frame: np.ndarray) -> Figure:
    page = mosaic(maps[:MAX_MAPS].float().cpu().numpy())
    figure = new_figure()
    width = WIDTH / HEIGHT * frame.shape[1] / frame.shape[0]  # of the frame, relative to the maps
    left, right = figure.subplots(1, 2, width_ratios=[min(0.25, width), 1])
    left.imshow(frame, cmap="gray_r", vmin=0)
    left.set(title="input", xticks=[], yticks=[])
    right.imshow(page, cmap=cmap, vmin=-1 if (page < 0).any() else 0, vmax=1)
    right.set(title=title, facecolor="#dddddd")
    plotting.blank(right)
    return figure


def mosaic(maps: np.ndarray) -> np.ndarray:
    """Lays out maps [maps, rows, columns] in full rows, with gaps of NaN between them, on a page that is about twice as
    wide as high.
    """
    maps = maps / np.abs(maps).max((1, 2), keepdims=True).clip(min=1e-9)
    places = np.pad(maps, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    count, rows, columns = places.shape
    divisors = [number for number in range(1, count + 1) if count % number == 0]
    per_row = min(divisors, key=lambda number: abs(math.log(number**2 * columns / (2 * count * rows))))
    return places.reshape(-1, per_row, rows, columns).transpose(0, 2, 1, 3).reshape(-1, per_row * columns)[:-1, :-1]


def draw_gates(network: Inspectable, frames: Num[Tensor, "1 steps ..."], title: str) -> Figure:
    """One panel per quantity, one row per step, one column per unit. The first step's forget gate has no effect."""
    assert isinstance(network.recurrent, LSTM)
    with torch.inference_mode():
        steps = list(network.recurrent.steps_of_first_layer(network.features(as_inputs(frames, network))))
    figure = new_figure()
    figure.suptitle(title)
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    for axes, name, values in zip(panels.flat, TITLES, zip(*steps, strict=True), strict=True):
        shown = torch.cat(values).float().cpu().numpy()
        is_gate = name in GATES
        limit = 1.0 if is_gate else max(1.0, abs(shown).max())
        cmap, lowest = ("Blues", 0.0) if is_gate else ("RdBu", -limit)
        axes.imshow(shown, cmap=cmap, vmin=lowest, vmax=limit, aspect="auto")
        axes.set_title(f"{name}, {'0 to 1' if is_gate else f'±{limit:.2g}'}", fontsize=SMALL)
        ticks = range(0, len(shown), -(-len(shown) // MAX_TICKS))
        axes.set_yticks(ticks, [step + 1 for step in ticks])
        axes.set_xticks([])
    panels[0, 0].set_ylabel("step")
    panels[1, 0].set_ylabel("step")
    figure.supxlabel(f"{shown.shape[1]} units", fontsize=SMALL)
    return figure


# Occluded pieces and orderings


MAX_ROWS = 9  # pieces; the accuracies of more are drawn as a map


def is_correct(network: nn.Module, samples: Batch) -> Int64[Tensor, " samples"]:
    """Returns 1 for each sample whose predicted class is its label, and 0 for the others. Samples are on the CPU."""
    predictions = []
    with torch.inference_mode():
        for places in torch.arange(len(samples.labels)).split(num_at_once(samples.frames.shape[1:])):
            batch = Batch._make(None if tensor is None else tensor[places] for tensor in samples)
            inputs, options = as_arguments(batch, network)
            predictions.append(network(inputs, **options).argmax(1).cpu())
    return torch.eq(torch.cat(predictions), samples.labels).long()


def correct_by_occluded_piece(
    network: nn.Module, images: UInt8[Tensor, "images channels height width"], labels: Int64[Tensor, " images"],
    orderings: Orderings, grid: Grid,
) -> Int64[Tensor, "pieces images"]:  # fmt: skip
    pieces = range(1, math.prod(grid) + 1)
    occluded = (frames_of(occlude_piece(images, piece, grid), orderings, grid) for piece in pieces)
    return torch.stack([is_correct(network, Batch(frames, labels)) for frames in occluded])


def correct_by_occluded_ordering(
    network: nn.Module, images: UInt8[Tensor, "images channels height width"], labels: Int64[Tensor, " images"],
    orderings: Orderings, grid: Grid,
) -> Int64[Tensor, "orderings images"]:  # fmt: skip
    """Blanks the pieces of one ordering in every frame, so `network` must encode each frame in full."""
    stacks = frames_of(images, orderings, grid).unflatten(-2, (len(orderings), -1))
    occluded = (stacks.index_fill(-3, torch.tensor(place), 0).flatten(-3, -2) for place in range(len(orderings)))
    return torch.stack([is_correct(network, Batch(frames, labels)) for frames in occluded])


def draw_occluded_pieces(
    correct: Int64[Tensor, "pieces images"], labels: Int64[Tensor, " images"], grid: Grid, names: Sequence[str]
) -> Figure:
    """Draws the accuracy as a matrix with one row per occluded piece and one column per class, or for more than
    MAX_ROWS pieces as a map of the image.
    """
    means = 100 * correct.float().mean(1)
    if len(correct) > MAX_ROWS:
        title = f"accuracy without each piece, {len(labels):,} test images, %"
        figure, axes = new_axes(xticks=[], yticks=[], title=title)
        shown = axes.imshow(means.unflatten(0, tuple(grid)).numpy(), cmap="Blues_r")
        figure.colorbar(shown, ax=axes)
        return figure
    piece = "quadrant" if tuple(grid) == QUADRANTS else "piece"
    title = f"accuracy on {len(labels):,} test images, %"
    figure, axes = new_axes(xlabel="class", ylabel=f"occluded {piece}", title=title)
    counts = labels.bincount(minlength=len(names))
    shares = torch.stack([100 * labels.bincount(row.float(), minlength=len(names)) / counts for row in correct])
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    if len(names) <= plotting.MAX_LABELLED_CLASSES:
        texts = [["" if math.isnan(share) else f"{share:.0f}" for share in row] for row in shares.tolist()]
        plotting.label_cells(axes, texts, (shares > 55).tolist())
        axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(correct)), [f"{number}: {mean:.1f} %" for number, mean in enumerate(means.tolist(), 1)])
    return figure


def draw_occluded_orderings(
    correct: Int64[Tensor, "orderings images"], orderings: Orderings, grid: Grid, unoccluded: Int64[Tensor, " images"]
) -> Figure:
    """`unoccluded` is 1 for each image that is classified correctly when nothing is occluded."""
    title = f"accuracy on {correct.shape[1]:,} test images, %"
    figure, axes = new_axes(xlim=(0, 112), xticks=range(0, 101, 20), ylabel="occluded ordering", title=title)
    shares = (100 * torch.cat([unoccluded[None], correct]).float().mean(1)).tolist()
    names = ["none", *(ordering_name(ordering, grid) for ordering in orderings)]
    bars = axes.barh(names, shares, color=[GREY] + [CORRECT] * len(orderings))
    axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return figure


# Occluded steps of clips and series, and steps in another order
#
# If the order of the steps matters, the accuracy is lower with reversed or shuffled steps.


MAX_SPANS = 32  # of steps; in longer sequences, several steps are occluded together


@torch.inference_mode()
def encoded(network: nn.Module, samples: Batch) -> Batch:
    """Adds the features of the frames, unless they are larger than these, so that each frame is encoded only once."""
    frames, lengths, first = samples.frames, samples.lengths, as_inputs(samples.frames[:1, :1], network)
    if not isinstance(network, StepClassifier) or network.encoder(first).numel() > first.numel():
        return samples
    masks = real_steps(frames, lengths).to(first.device).split(CLIPS_AT_ONCE)
    parts = zip(frames.split(CLIPS_AT_ONCE), masks, strict=True)
    features = [network.encoder(as_inputs(clips, network), mask=mask).cpu() for clips, mask in parts]
    return samples._replace(features=torch.cat(features))


def with_steps(samples: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Changes what the network reads at the steps: the features, or the frames if there are none."""
    if samples.features is None:
        return samples._replace(frames=change(samples.frames))
    return samples._replace(features=change(samples.features))


def accuracy(network: nn.Module, samples: Batch) -> float:
    return is_correct(network, samples).float().mean().item()


def accuracy_by_occluded_step(network: nn.Module, samples: Batch, blank: Tensor | int = 0) -> dict[float, float]:
    """Returns the accuracy by the numbers of the steps that show nothing, or by the middle of a span of steps."""
    frames = samples.frames
    numbers, real = torch.arange(frames.shape[1]), real_steps(frames, samples.lengths)
    shown: Any = torch.zeros_like(frames[:1, :1]) + torch.as_tensor(blank, dtype=frames.dtype)
    if samples.features is not None:
        shown = encoded(network, Batch(shown, samples.labels[:1])).features

    def accuracy_without(span: Tensor) -> float:
        places = (real & torch.isin(numbers, span),)
        return accuracy(network, with_steps(samples, lambda steps: steps.index_put(places, shown[0, 0])))

    spans = numbers.tensor_split(min(len(numbers), MAX_SPANS))
    return {1 + span.float().mean().item(): accuracy_without(span) for span in spans}


def accuracy_by_order(network: nn.Module, samples: Batch) -> dict[str, float]:
    """Returns the accuracy with the steps in order, in reverse order, and shuffled, the same way for all samples."""
    num_steps = samples.frames.shape[1]
    shuffled = torch.randperm(num_steps, generator=torch.Generator().manual_seed(0))
    ranks = {"in order": torch.arange(num_steps), "reversed": -torch.arange(num_steps), "shuffled": shuffled}
    return {name: accuracy(network, reorder(samples, rank)) for name, rank in ranks.items()}


def reorder(samples: Batch, ranks: Int64[Tensor, " steps"]) -> Batch:
    """Sorts the real steps of each sample by their ranks; padding stays at the end."""
    real = real_steps(samples.frames, samples.lengths)
    places = ranks.masked_fill(~real, ranks.max() + 1).argsort(dim=1, stable=True)
    return with_steps(samples, lambda steps: steps[torch.arange(len(steps))[:, None], places])


def draw_occluded_steps(by_step: dict[float, float], by_order: dict[str, float], counted_samples: str) -> Figure:
    """`by_step` has the accuracy with each step or span of steps occluded, `by_order` those with all steps."""
    xlabel = "occluded step (bars); all steps, in this order (lines):"
    figure, axes = new_axes(title=f"accuracy on {counted_samples}, %", xlabel=xlabel, ylim=(0, 105))
    width = 0.8 * min([later - step for step, later in itertools.pairwise(by_step)], default=1.0)
    axes.bar(list(by_step), [100 * share for share in by_step.values()], width, color=CORRECT)
    for (name, share), colour in zip(by_order.items(), ("black", *GROUP_COLOURS[1:]), strict=False):
        axes.axhline(100 * share, color=colour, linestyle="--", label=f"{name}: {100 * share:.1f}")
    figure.legend(loc="outside lower center", ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure

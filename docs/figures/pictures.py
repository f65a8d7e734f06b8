"""Draws what runs have learned, how convolutions and an LSTM are joined, and in which order pieces are read."""

import functools
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from quadrant_lstm.dashboard.gallery import drawn_names
from quadrant_lstm.dashboard.pictures import predictions
from quadrant_lstm.dashboard.pictures.data import draw_orderings, draw_path
from quadrant_lstm.dashboard.pictures.network import as_inputs
from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import SCANS, ordering_of, scaled
from quadrant_lstm.errors import UserError
from quadrant_lstm.plotting import CORRECT, GREY, SCALE, WIDTH, WRONG, as_png, blank, new_figure, style
from quadrant_lstm.run.build import build_data, resolve_precision
from quadrant_lstm.run.load import load_classifier, run_test
from quadrant_lstm.run_folder import METRICS, read_rows
from quadrant_lstm.sweep.plots import error_percent, format_error_axes
from quadrant_lstm.sweep.sweep_folder import Sweep
from quadrant_lstm.text import percent

# Runs


@style
def draw_epochs(sweep: Sweep) -> bytes:
    """Draws the error of each seed after each epoch, and the epoch that it keeps."""
    figure = new_figure(2 * WIDTH, 3.2)
    axes = figure.subplots()
    for job in sweep.jobs:
        results = job.results() or {}
        if "val/accuracy" not in results:
            raise UserError(f"{job.folder}: has not finished, or has no validation images; give another sweep.")
        rows = read_rows(job.folder / METRICS)
        numbers_of_epochs, kept = [int(row["epoch"]) for row in rows], results["best_epoch"]
        train, val = ([error_percent(float(row[f"{split}/accuracy"])) for row in rows] for split in ("train", "val"))
        (on_train,) = axes.plot(numbers_of_epochs, train, color=GREY, linewidth=0.8)
        (on_validation,) = axes.plot(numbers_of_epochs, val, color=CORRECT, linewidth=0.8)
        (dot,) = axes.plot(kept, val[kept - 1], "o", color=CORRECT, markersize=4)
    format_error_axes(axes, "epoch", "error, %")
    axes.legend([on_train, on_validation, dot], ["on augmented training images", "on validation images", "kept epoch"])
    return as_png(figure, SCALE)


@style
def mistakes(runs: Sequence[Path]) -> bytes:
    """Prints how many test images the mean of the probabilities of runs misclassifies, and draws these images."""
    probabilities, tested = [], []
    for run in runs:
        classifier, data = run_test(run, "auto")
        labels = classifier.test_labels
        probabilities.append(classifier.test_logits[:, -1].float().softmax(1))
        tested.append((data.sha256(), labels.tolist()))
        if tested[-1] != tested[0]:
            raise UserError(f"{run}: was tested on other samples than {runs[0]}; give runs with the same data.")
    of_each = torch.stack(probabilities)
    logits = of_each.mean(0).log()
    wrong = predictions.most_confident_mistakes(logits, labels)
    print(f"test accuracy  {percent(1 - len(wrong) / len(labels))}  ({len(wrong)} of {len(labels):,} misclassified)")
    if len(runs) > 1:
        by_each = of_each.argmax(2) != labels
        all_of_them, one = int(by_each.all(0).sum()), int(by_each.any(0).sum())
        print(f"misclassified by all {len(runs)} networks: {all_of_them}, by at least one: {one}")
    num_rows = max(1, -(-len(wrong) // predictions.columns_for(*data.test_pictures(torch.arange(1)).shape[2:])))
    title, names = f"{len(wrong):,} of {len(labels):,} misclassified", data.spec.class_names
    shown = data.test_pictures(wrong), labels[wrong], logits[wrong]
    return as_png(predictions.draw_mistakes(*shown, names, title, num_rows), SCALE)


SHARES, NUM_COPIES = (0.3, 0.6, 1.0), 8


def print_copies(runs: Sequence[Path]) -> None:
    """Prints how many validation images, or test images if there are none, each run misclassifies, and how many by the
    mean of the probabilities of an image and of 4 or 8 augmented copies. Each copy is augmented in one way for all
    images, by a share of the maxima of the training. The seconds are those of all images, alone and with 8 copies.
    """
    columns = [f" {share:.0%} x{number}" for share in SHARES for number in (4, NUM_COPIES)]
    print("run  alone ", *columns, " seconds", f"   x{NUM_COPIES}")
    for run in runs:
        (classifier, cfg), wrong = load_classifier(run), list[int]()
        data = build_data(cfg)
        validates = len(data.validation_indices) > 0
        images, labels, *_ = data.train[data.validation_indices] if validates else data.test[:]
        probabilities = functools.partial(probabilities_of, classifier.network.eval(), data, cfg.trainer.precision)
        start = time.perf_counter()
        alone = probabilities(images)
        seconds = time.perf_counter() - start
        for share in SHARES:
            weaker = Augmentation(**{name: share * maximum for name, maximum in asdict(data.augmentation).items()})
            total = alone.clone()
            torch.manual_seed(0)
            for number in range(1, NUM_COPIES + 1):
                total += probabilities(weaker(images.transpose(0, 1)).transpose(0, 1))  # as channels of one image
                wrong += [count_wrong(total, labels)] if number in (4, NUM_COPIES) else []
        with_copies = (time.perf_counter() - start - seconds) / len(SHARES) + seconds
        counts = " ".join(f"{count:8}" for count in wrong)
        print(f"{run.name:>3}  {count_wrong(alone, labels):5}  {counts}  {seconds:8.1f} {with_copies:5.1f}", flush=True)


@torch.inference_mode()
def probabilities_of(network: nn.Module, data: Any, precision: str, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in resolve_precision(precision, "cpu")):
        batches = (scaled(data.cut(batch, ())) for batch in images.split(500))
        return torch.cat([network(batch).float().softmax(1) for batch in batches])


def count_wrong(probabilities: Tensor, labels: Tensor) -> int:
    return int((probabilities.argmax(1) != labels).sum())


@style
def clip(run: Path, number: int) -> bytes:
    """Draws a test clip, and the probability of each class after each of its frames."""
    classifier, data = run_test(run, "auto")
    samples, names = data.test_samples(torch.tensor([number])), drawn_names(data)
    (frames,), label = samples.unpadded(), int(samples.labels)
    logits = classifier.test_logits[number, : len(frames)]
    title = f"a test clip of class {names[label]}"
    return as_png(predictions.draw_belief(frames, logits, label, names, title), 2 * SCALE)


# Two samples of four steps on their way through a network. Sizes are in pixels of a picture of 800 x 330

COLOURS, DARK = (CORRECT, WRONG), "#555555"
SIDE, PITCH, STRIP = 30, 34, 9  # of a frame, from frame to frame, width of a vector
STAGES = {  # by their middles
    80: "[N, T, C, H, W]", 266: "[N*T, C, H, W]", 413: "[N*T, F, h, w]", 611: "[N, T, features]", 717: "[N, units]",
}  # fmt: skip
ARROWS = {  # by their ends
    (153, 245): "fold the steps\ninto the batch", (287, 358): "convolve", (652, 706): "LSTM", (728, 760): "",
    (468, 574): "unfold, then\nflatten all but\nsample and step",
}  # fmt: skip


@style
def draw_join(run: Path, numbers: Sequence[int]) -> bytes:
    """Draws two test samples, what the network of a run makes of them, and the shapes."""
    classifier, cfg = load_classifier(run)
    network, data = classifier.network.eval(), build_data(cfg)
    frames = data.test_samples(torch.tensor(numbers)).frames
    with torch.inference_mode():
        inputs = as_inputs(frames, network)
        maps, features = network.in_full().encoder(inputs).relu(), network.features(inputs).flatten(2)
        states, classes = network.outputs_per_step(inputs)[:, -1], network(inputs).argmax(1)
    figure = new_figure(8.0, 3.3, layout=None)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 800), ylim=(330, 0))
    blank(axes)
    for sample, colour in enumerate(COLOURS):
        middle = (4 * sample + 2) * PITCH + 6
        for step in range(4):
            x, y = step * PITCH, (4 * sample + step) * PITCH + 8
            show(axes, colour, frames[sample, step, 0], 14 + x, middle - SIDE / 2)
            show(axes, colour, frames[sample, step, 0], 251, y)
            for number in range(3):
                show(axes, colour, maps[sample, step, number], 364 + number * PITCH, y)
            show(axes, colour, features[sample, step, :, None], 580 + step * 2 * STRIP, middle - 60, STRIP, 120)
        show(axes, colour, states[sample, :, None], 713, middle - SIDE, STRIP, 2 * SIDE)
        name = data.spec.class_names[classes[sample]]
        axes.text(778, middle, name, color=colour, fontsize=22, ha="center", va="center")
    axes.text(778, 294, "class", fontsize=9.5, ha="center")
    tensors = (frames, frames.flatten(0, 1), maps.flatten(0, 1), features, states)
    for (x, axis_names), tensor in zip(STAGES.items(), tensors, strict=True):
        axes.text(x, 294, axis_names, fontsize=9.5, ha="center")
        axes.text(x, 314, ", ".join(map(str, tensor.shape)), color=DARK, fontsize=8.5, ha="center")
    for (start, end), operation in ARROWS.items():
        arrow = {"arrowstyle": "-|>,head_length=0.5,head_width=0.25", "color": "black"}
        axes.annotate("", (end, 142), (start, 142), arrowprops=arrow)
        axes.text((start + end) / 2, 134, operation, fontsize=9, ha="center")
    return as_png(figure, SCALE)


def show(axes: Axes, colour: str, values: Tensor, x: float, y: float, width: int = SIDE, height: int = SIDE) -> None:
    axes.imshow(values.float().numpy(), cmap="gray_r", extent=(x, x + width, y + height, y), aspect="auto")
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.2))


# Orderings


@style
def orderings() -> bytes:
    """Draws the first test digit, its quadrants, the four orderings of the question, and the frame of each step."""
    digit = torch.from_numpy(load_images("mnist", None).test_images[0])
    return as_png(draw_orderings(digit), scale=3)


@style
def draw_scans(grid: tuple[int, int] = (4, 4)) -> bytes:
    """Draws each named ordering as a path over the pieces, with the number of the step that reads each piece."""
    figure = new_figure(2 * WIDTH, 1.62)
    for axes, name in zip(figure.subplots(1, len(SCANS)), SCANS, strict=True):
        axes.set(xlim=(-0.5, grid[1] - 0.5), ylim=(grid[0] - 0.5, -0.5), aspect="equal", title=name)
        axes.set(xticks=[column + 0.5 for column in range(grid[1])], yticks=[row + 0.5 for row in range(grid[0])])
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.tick_params(length=0, labelbottom=False, labelleft=False)
        ordering = ordering_of(name, grid)
        draw_path(axes, ordering, grid, CORRECT)
        for step, piece in enumerate(ordering, start=1):
            row, column = divmod(piece - 1, grid[1])
            box = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": "none"}
            axes.text(column, row, str(step), ha="center", va="center", bbox=box)
    return as_png(figure, SCALE)

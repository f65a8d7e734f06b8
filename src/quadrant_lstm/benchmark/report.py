"""Measurements -> a table in Markdown and a picture."""

import statistics
from collections.abc import Iterable
from typing import Any

from matplotlib.figure import Figure

from quadrant_lstm.plotting import ORDERING_COLOURS, new_figure

KERAS, PLAIN, OURS = "Keras, TensorFlow", "plain PyTorch, fp32", "ours, fp32"
BF16 = "ours, bf16"
EPOCH = 60_000  # images
WHOLE_EPOCHS = {  # who takes one, and by what
    f"{KERAS}, fit": (KERAS, "fit"),
    f"{KERAS}, train_on_batch": (KERAS, "train"),
    f"{PLAIN}, a loop": (PLAIN, "train"),
}


class Rounds(dict[str, list[float]]):
    """What is measured -> its value in each round, in the same order for all."""

    def median(self, name: str) -> float:
        return statistics.median(self[name])

    def ratios(self, slow: str, fast: str) -> list[float]:
        """Of each round, as what disturbs a round disturbs both; empty if one was not measured."""
        return [one / other for one, other in zip(self.get(slow, []), self.get(fast, []), strict=False)]


def spread(values: Iterable[float], digits: int = 1) -> str:
    values = list(values)
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(measured: dict[str, Rounds], notes: list[str], gflop: dict[str, float]) -> str:
    step, step512, infer = measured["train 64"], measured["train 512"], measured["infer 512"]
    peak64, peak512 = measured["peak 64"], measured["peak 512"]
    lines = [
        "| median (least to most) | training step, batch 64, ms | times as fast as Keras | batch 512, ms "
        "| inference, batch 512, ms | times as fast as Keras | peak memory, batch 64 / 512, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in (name for name in step if "orderings" not in name):
        cells = [spread(step[name]), times(step.ratios(KERAS, name)), spread(step512[name], 0), spread(infer[name], 0)]
        cells += [times(infer.ratios(KERAS, name)), f"{peak64.median(name):,.0f} / {peak512.median(name):,.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| against | measured |", "|---|---|"]
    epochs, rates = measured["epoch"], measured["rate"]
    for name in epochs:
        batch = "" if "batch_size" in name else ", batch 64"
        lines.append(f"| an epoch of 60,000 images{batch}: {name} | {spread(epochs[name])} s |")
    for name in (name for name in epochs if name not in WHOLE_EPOCHS and "batch_size" not in name):
        for peer in (peer for peer in WHOLE_EPOCHS if peer in epochs):
            lines.append(f"| {name} against {peer}, an epoch | {times(epochs.ratios(peer, name))} |")
    if fast := measured["fast"]:
        name = f"python train.py experiment=fast, seed 1 to {len(fast['seconds'])}"
        lines.append(f"| {name}: test accuracy | {spread(fast['accuracy'], 2)} % |")
        lines.append(f"| {name}: its epochs, as long as the last | {spread(fast['seconds'])} s |")
    for name in (OURS, BF16):
        lines.append(f"| {name}, against {PLAIN}, a step of 64 | {times(step.ratios(PLAIN, name))} |")
        for number in (8, 24):
            more = step.ratios(f"{name}, {number} orderings", name)
            lines.append(f"| {name}: a step with {number} orderings, against 4 | {times(more)} |")
        kind = name.split(", ")[1]
        for rate in (rate for rate in rates if rate.endswith(kind)):
            reached = gflop["step 64"] / step.median(name) * 1000  # GFLOP/s
            what = f"{rate.split(', ')[0]} ({spread(rates[rate], 0)} GFLOP/s)"
            share = f"{100 * reached / rates.median(rate):.0f} %"
            lines.append(
                f"| {name}: share of the rate of {what}, a step of 64 ({gflop['step 64']:.2f} GFLOP) | {share} |"
            )
        if above := measured["share above a bare loop"].get(kind):
            lines.append(f"| {name}: share of a step of train.py above a bare loop | {spread(above)} % |")
        if growth := measured["growth"].get(kind):
            lines.append(f"| {name}: growth of memory from epoch 2 to epoch 10 | {max(growth):.0f} MB |")
    return "\n".join([*lines, *(f"\nNot measured: {note}." for note in notes)])


def times(ratios: list[float]) -> str:
    return spread(ratios) if ratios else ""


def picture(measured: dict[str, Rounds], machine: str) -> Figure:
    figure = new_figure(9.0, 3.6)
    panels: list[Any] = list(figure.subplots(1, 2))
    for axes, key, title in zip(
        panels,
        ("train 64", "infer 512"),
        ("a training step, 64 images (ms)", "inference, 512 images (ms)"),
        strict=True,
    ):
        rounds = measured[key]
        names = [name for name in rounds if "orderings" not in name][::-1]
        medians = [rounds.median(name) for name in names]
        low = [median - min(rounds[name]) for name, median in zip(names, medians, strict=True)]
        high = [max(rounds[name]) - median for name, median in zip(names, medians, strict=True)]
        colours = [ORDERING_COLOURS[0] if name.startswith("ours") else "#bbbbbb" for name in names]
        bars = axes.barh(names, medians, xerr=[low, high], color=colours, error_kw={"lw": 1})
        axes.bar_label(bars, [f" {median:.0f}" for median in medians], label_type="edge", padding=6)
        axes.set(title=title, xlim=(0, 1.2 * max(map(max, rounds.values()))))
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].set_yticklabels([])
    figure.supxlabel(machine, fontsize=8)
    return figure

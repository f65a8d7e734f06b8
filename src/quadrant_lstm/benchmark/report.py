"""Renders the measurements of the benchmark as a table in Markdown and as a picture."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from quadrant_lstm.plotting import ORDERING_COLOURS, new_figure

KERAS, PLAIN, OURS, BF16 = "Keras, TensorFlow", "plain PyTorch, fp32", "this project, fp32", "this project, bf16"
EPOCH = 60_000  # images
WHOLE_EPOCHS = {  # the peers that train a whole epoch, and by which method
    f"{KERAS}, fit": (KERAS, "fit"),
    f"{KERAS}, train_on_batch": (KERAS, "train"),
    f"{PLAIN}, a loop": (PLAIN, "train"),
}


class Rounds(dict[str, list[float]]):
    """Maps what is measured to its value in each round, in the order of the rounds."""

    def add(self, name: str, value: float) -> None:
        self.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return statistics.median(self[name])

    def ratios(self, slow: str, fast: str) -> list[float]:
        """Returns the ratio in each round, because noise in a round affects both; empty if one was not measured."""
        if slow not in self or fast not in self:
            return []
        return [first / second for first, second in zip(self[slow], self[fast], strict=True)]


def median_and_range(values: Sequence[float], digits: int = 1) -> str:
    if not values:
        return ""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def times(measured: Rounds, base: str, others: Sequence[str]) -> Iterator[str]:
    """Returns cells: the median time, then, for each of `others`, also its median ratio to `base` and their range."""
    yield f"{measured.median(base):.3g} ms"
    for name in others:
        if name not in measured:
            yield "not installed"
            continue
        low, middle, high = statistics.quantiles(measured.ratios(name, base), n=4)
        yield f"{measured.median(name):.3g} ms, {middle:.2f} ({low:.2f} to {high:.2f})"


def table(measured: dict[str, Rounds], notes: list[str]) -> str:
    tables = [*peer_table(measured), "", *comparison_table(measured)]
    return "\n".join([*tables, *(f"\nNot measured: {note}." for note in notes)])


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def peer_table(measured: dict[str, Rounds]) -> list[str]:
    """Returns one row per peer: its steps, inference and memory."""
    step, step512, infer = measured["train 64"], measured["train 512"], measured["infer 512"]
    peak64, peak512 = measured["peak 64"], measured["peak 512"]
    lines = [
        "| median (minimum to maximum) | training step, batch 64, ms | times as fast as Keras | batch 512, ms "
        "| inference, batch 512, ms | times as fast as Keras | peak main memory of the process, batch 64 / 512, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in infer:
        training = [median_and_range(step[name]), median_and_range(step.ratios(KERAS, name))]
        inference = [median_and_range(infer[name], 0), median_and_range(infer.ratios(KERAS, name))]
        peaks = f"{peak64.median(name):,.0f} / {peak512.median(name):,.0f}"
        lines.append(row(name, *training, median_and_range(step512[name], 0), *inference, peaks))
    return lines


def comparison_table(measured: dict[str, Rounds]) -> list[str]:
    """Returns the epochs, and what this project's steps are compared with."""
    lines = ["| comparison | result |", "|---|---|"]
    step, epochs = measured["train 64"], measured["epoch"]

    def add_row(*cells: str) -> None:
        lines.append(row(*cells))

    for name in epochs:
        batch = "" if "batch_size" in name else ", batch 64"
        add_row(f"an epoch of 60,000 images{batch}: {name}", f"{median_and_range(epochs[name])} s")
    for name in (name for name in epochs if name not in WHOLE_EPOCHS and "batch_size" not in name):
        for peer in (peer for peer in WHOLE_EPOCHS if peer in epochs):
            add_row(f"{name}: times as fast as {peer}, an epoch", median_and_range(epochs.ratios(peer, name)))
    for name in (name for name in (OURS, BF16) if name in step):
        add_row(f"{name}: times as fast as {PLAIN}, a step of 64", median_and_range(step.ratios(PLAIN, name)))
        for number in (8, 24):
            ratios = step.ratios(f"{name}, {number} orderings", name)
            add_row(f"{name}: time of a step with {number} orderings, relative to 4", median_and_range(ratios))
        if overhead := measured["share above a bare loop"].get(name.split(", ")[1]):
            add_row(f"{name}: share of a step of train.py above a bare loop", f"{median_and_range(overhead)} %")
    return lines


def picture(measured: dict[str, Rounds], machine: str) -> Figure:
    figure = new_figure(9.0, 3.6)
    panels: list[Any] = list(figure.subplots(1, 2))
    titles = {"train 64": "a training step, 64 images (ms)", "infer 512": "inference, 512 images (ms)"}
    names = list(measured["infer 512"])[::-1]
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        rounds = measured[key]
        medians = [rounds.median(name) for name in names]
        low = [median - min(rounds[name]) for name, median in zip(names, medians, strict=True)]
        high = [max(rounds[name]) - median for name, median in zip(names, medians, strict=True)]
        colours = [ORDERING_COLOURS[0] if name.startswith("this project") else "#bbbbbb" for name in names]
        bars = axes.barh(names, medians, xerr=[low, high], color=colours, error_kw={"lw": 1})
        axes.bar_label(bars, [f" {median:.0f}" for median in medians], label_type="edge", padding=6)
        axes.set(title=title, xlim=(0, 1.2 * max(max(rounds[name]) for name in names)))
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].set_yticklabels([])
    figure.supxlabel(machine, fontsize=8)
    return figure

"""Draws the pictures of a sweep's report from the results of its jobs."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from quadrant_lstm.plotting import GREY, GROUP_COLOURS, new_figure, undrawable
from quadrant_lstm.sweep.sweep_folder import REPETITIONS, Group, Job, mean_of, readable

WIDTH = 5.5  # inches; a phone shrinks a wider picture until its texts are too small
MAX_CATEGORIES = 6  # a key with more values, all of them numbers, gets a scatter plot
MIN_TICKS = 6  # on a logarithmic axis
IN_DECADE = ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8))  # few or many ticks


def draw_curves(groups: Sequence[Group]) -> Figure:
    """Draws the mean validation error of each group after each epoch; the best groups in colour, the others in grey."""
    labels = [textwrap.fill(drawable(str(group)), 66, break_on_hyphens=False) for group in groups[: len(GROUP_COLOURS)]]
    figure = new_figure(WIDTH, 3.2 + 0.18 * sum(label.count("\n") + 1 for label in labels))
    axes = figure.subplots()
    for rank, group in reversed(list(enumerate(groups))):
        curve = group.curve()
        errors = [error_percent(accuracy) for accuracy in curve.values()]
        if rank < len(GROUP_COLOURS):
            axes.plot(list(curve), errors, marker="o", markersize=3, color=GROUP_COLOURS[rank], label=labels[rank])
        else:
            axes.plot(list(curve), errors, color="#cccccc", linewidth=1, zorder=1)
    format_error_axes(axes, "epoch", "validation error, %")
    handles, _ = axes.get_legend_handles_labels()
    figure.legend(handles=handles[::-1], loc="outside lower left", frameon=False, fontsize=9)
    return figure


def error_percent(accuracy: float) -> float:
    """Returns the error in %, at least 0.01 %, because a logarithmic axis has no zero."""
    return max(100 * (1 - accuracy), 0.01)


def format_error_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Formats the x axis for whole numbers and the logarithmic y axis for errors."""
    axes.set(xlabel=x_label, ylabel=y_label, yscale="log")
    mark_logarithmic(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def mark_logarithmic(axis: Axis) -> None:
    """Marks at least MIN_TICKS round values, if possible, on a logarithmic axis that has its final limits."""
    low, high = sorted(axis.get_view_interval())
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)))]
    choices = [[tick * power for power in powers for tick in in_decade] for in_decade in IN_DECADE]
    linear = list(map(float, MaxNLocator(9, steps=[1, 2, 5, 10]).tick_values(low, high)))  # for a part of a decade
    shown = [[tick for tick in ticks if low <= tick <= high] for ticks in (*choices, linear)]
    ticks = next((ticks for ticks in shown if len(ticks) >= MIN_TICKS), shown[-1])
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def draw_effects(jobs: Sequence[Job]) -> list[Figure]:
    """Draws one picture per swept key: the val/accuracy of each job by the key's value, means, and 95 % intervals."""
    results = [(job, results) for job in jobs if "val/accuracy" in (results := job.results() or {})]
    keys = [key for key in jobs[0].swept if key not in REPETITIONS] or list(jobs[0].swept) or ["all"]
    percents = [100 * of_job["val/accuracy"] for _, of_job in results]
    margin = 0.1 * (max(percents) - min(percents)) or 1
    limits = min(percents) - margin, max(percents) + margin  # intervals can be ten times as wide as this range
    figures = []
    for key in keys:
        values: dict[str, list[tuple[Job, float]]] = {}
        for job, of_job in results:
            values.setdefault(job.swept.get(key, ""), []).append((job, of_job["val/accuracy"]))
        figures.append(new_figure(3.4, 3.0))
        axes = figures[-1].subplots()
        if len(values) > MAX_CATEGORIES and all(sort_key(value)[0] < math.inf for value in values):
            draw_scatter(axes, values)
        else:
            draw_means(axes, values)
        axes.set_title(key, fontsize=10)
        axes.set_ylabel("validation accuracy, %")
        axes.set_ylim(*limits)
        axes.grid(alpha=0.3, axis="y")
    return figures


def draw_means(axes: Axes, values: dict[str, list[tuple[Job, float]]]) -> None:
    """Draws the accuracies of each value beside their mean, with its 95 % confidence interval."""
    ordered = sorted(values, key=sort_key)
    for position, value in enumerate(ordered):
        offsets = [position + 0.12 + 0.02 * (number % 5) for number in range(len(values[value]))]
        percents = [100 * accuracy for _, accuracy in values[value]]
        axes.plot(offsets, percents, "o", color=GREY, markersize=3, alpha=0.7)
        mean = mean_of(values[value])
        low, high = mean.interval or (mean.mean, mean.mean)
        whiskers = [[100 * (mean.mean - low)], [100 * (high - mean.mean)]]
        axes.errorbar(position, 100 * mean.mean, yerr=whiskers, fmt="o", color=GROUP_COLOURS[0], capsize=3)
    labels = [drawable(readable(value)) for value in ordered]
    rotated: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(ordered)), labels, **(rotated if max(map(len, labels)) > 8 else {}))
    axes.set_xlim(-0.5, len(ordered) - 0.3)


def draw_scatter(axes: Axes, values: dict[str, list[tuple[Job, float]]]) -> None:
    points = [(float(value), 100 * accuracy) for value, of_value in values.items() for _, accuracy in of_value]
    axes.plot(*zip(*points, strict=True), "o", color=GREY, markersize=4)
    lowest, highest = min(points)[0], max(points)[0]
    if lowest > 0 and highest > 10 * lowest:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")


def draw_search(jobs: Sequence[Job], metric: str) -> Figure:
    """Draws the value of the metric for each trial, as an error if it is no loss, and the lowest so far."""
    figure = new_figure(WIDTH, 3.2)
    axes = figure.subplots()
    is_loss = metric.endswith("loss")
    trials = [
        (job.number, results[metric] if is_loss else error_percent(results[metric]), bool(results.get("pruned")))
        for job in jobs
        if (results := job.results()) and metric in results
    ]
    for pruned, label in ((False, "trial"), (True, "pruned trial")):
        points = [(number, error) for number, error, was_pruned in trials if was_pruned == pruned]
        if points:
            fill = "none" if pruned else GROUP_COLOURS[0]
            axes.plot(*zip(*points, strict=True), "o", color=GROUP_COLOURS[0], markerfacecolor=fill, label=label)
    numbers, lowest = [trial[0] for trial in trials], list(itertools.accumulate((trial[1] for trial in trials), min))
    axes.step(numbers, lowest, where="post", color=GROUP_COLOURS[1], label="lowest so far")
    error = "validation error, %" if metric == "val/accuracy" else f"100 % - {metric}, %"
    format_error_axes(axes, "trial", metric if is_loss else error)
    axes.legend(frameon=False, fontsize=9)
    return figure


def drawable(text: str) -> str:
    """Replaces characters that no font of this machine has, e.g. by \\u732b."""
    missing = undrawable(text)
    return "".join(ascii(character)[1:-1] if character in missing else character for character in text)


def sort_key(value: str) -> tuple[float, str]:
    """Sorts numbers by size, and other texts after them."""
    try:
        return float(value), value
    except ValueError:
        return math.inf, value

"""Writes report.html: the results of a run, its pictures with captions, its network and its config."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from quadrant_lstm import files, run_folder, text
from quadrant_lstm.dashboard.dashboard import Dashboard
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.plotting import CORRECT, GREY, SCALE, WRONG, as_png, new_axes, style
from quadrant_lstm.signals import signals_deferred

# Loss and accuracy by epoch


HISTORIES = {  # title: the colour of each metric's curve
    "Loss by epoch": {"train/loss": GREY, "val/loss": CORRECT},
    "Accuracy by epoch": {"train/accuracy": GREY, "val/accuracy": CORRECT},
}
AFTER_EACH_STEP = "Validation accuracy after each step, by epoch"
EARLY, MAX_NAMED_STEPS = "#d9e2ea", 8  # the colour of the first step; steps in the legend
MAX_LISTED_STEPS = 16  # in the table


def histories(rows: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, Any]]:
    """Returns the figures of a run, as HISTORIES does; one of the steps if there are accuracies after each step. The
    colours of the steps grow darker.
    """
    steps = [name for name in text.step_accuracies_in("val", rows[0]) if rows[0][name]]
    shades = LinearSegmentedColormap.from_list("steps", [EARLY, CORRECT])
    colours = {name: shades((number + 1) / len(steps)) for number, name in enumerate(steps)}
    return HISTORIES | ({AFTER_EACH_STEP: colours} if steps else {})


def draw_history(curves: Mapping[str, Any], rows: Sequence[Mapping[str, str]], tested_epoch: int) -> Figure:
    """`curves` has the colour of each metric's curve."""
    figure, axes = new_axes(xlabel="epoch")
    for number, (name, colour) in enumerate(curves.items(), start=1):
        if points := [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]:
            is_named = number == len(curves) or number % -(-len(curves) // MAX_NAMED_STEPS) == 0
            label = name.replace("val/accuracy_step_", "step ") if is_named else None
            axes.plot(*zip(*points, strict=True), color=colour, label=label, marker="o", markersize=2)
    axes.axvline(tested_epoch, color=WRONG, linewidth=0.8, linestyle=":", label="tested epoch")
    figure.legend(loc="outside right center")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    return figure


# The page


INTRODUCTIONS = {
    "Predictions after each step": "The frames that the network reads, and the probability of each class after each "
    "step: blue is the true class, red a wrong prediction. A long sequence is shown as a map: darker is more probable, "
    "and the dots are the predictions.",
}
SECTIONS: Mapping[str, Mapping[str, str]] = {  # captions, by patterns of the pictures' tags, whose groups they may use
    "Data": {
        "data/orderings": "The first test image and the frames that the network reads. A colour outlines the pieces of "
        "one ordering; on a larger grid, a path that begins at its dot shows an ordering.",
        "data/series": "A colour is a feature, from three deviations below its mean in training to three above.",
        "data/clips": "Frames are numbered from 1. Of a long clip, some frames are shown.",
        "data/augmentation": "Each epoch draws other versions.",
    },
    "Test": {
        "test/confusion": "Number of samples by true and predicted class. The darker, the larger the share of the true "
        "class.",
        "test/classes": "The share of each class that is misclassified, and below it the number of samples.",
        "test/mistakes": "The true class of each sample, the predicted class, and the confidence of the prediction.",
        "test/calibration": "Above, the accuracy at each level of confidence: a bar below the dashed line is "
        "overconfident. Below, the number of samples with that confidence.",
        "test/occluded_piece": "Accuracy with one piece of the image occluded, for each class; with more than nine "
        "pieces, a map of the image.",
        "test/occluded_ordering": "Accuracy with one ordering occluded in all frames; grey is without occlusion.",
        "test/occluded_step": "Bars: accuracy with that step occluded; of long sequences, with several steps. Lines: "
        "accuracy with all steps in that order.",
    },
    "Predictions after each step": {r"belief/example_(\d+)": r"Example \1", r"belief/mistake_(\d+)": r"Mistake \1"},
    "Inside the network": {
        "inside/filters": "Weights: red is negative, blue is positive.",
        "inside/gates": "A row is a step, a column is a unit. Gates: white is 0, dark blue is 1. The others: red is "
        "negative, blue is positive.",
        "inside/(.+)": r"Output of \1 for the input on the left: white is 0, black is the largest value of each map.",
    },
    "Other pictures": {"(.+)": r"\1"},
}  # fmt: skip


@style
@signals_deferred()  # as the dashboard does while it draws
def write_run_report(folder: Path, results: Mapping[str, Any], dashboard: Dashboard, data: SequenceDataModule) -> None:
    """`results` are those of results.json; `dashboard` has the pictures."""
    rows, best_epoch = run_folder.read_rows(folder / run_folder.METRICS), results["best_epoch"]
    steps = text.step_accuracies_in("test", results)
    listed = steps if len(steps) <= MAX_LISTED_STEPS else steps[:: -(len(steps) // MAX_NAMED_STEPS)][::-1]
    curves = [(title, as_png(draw_history(lines, rows, best_epoch), SCALE)) for title, lines in histories(rows).items()]
    page = text.render(
        "run.html",
        name=folder.name,
        command=files.read_json(folder / run_folder.PROVENANCE)["command"],
        data=data,
        results=results,
        step_accuracies={name.rpartition("_")[2]: results[name] for name in listed},
        each_step=listed == steps,
        numbered=dashboard.numbered,
        sections={"Curves": ("", curves)} | by_section(dashboard.pictures),
        stages=dashboard.stages,
        config=files.yaml_with_short_lists(folder / run_folder.CONFIG),
    )
    files.write_atomically(folder / run_folder.REPORT, page.encode())


def by_section(pictures: Mapping[str, bytes]) -> dict[str, tuple[str, list[tuple[str, bytes]]]]:
    """Returns, for each section, its introduction and its pictures with captions: a picture is in the first section
    with a pattern for its tag.
    """
    shown: dict[str, list[tuple[str, bytes]]] = {}
    for tag, png in pictures.items():
        patterns = ((title, *pair) for title, captions in SECTIONS.items() for pair in captions.items())
        title, pattern, caption = next(entry for entry in patterns if re.fullmatch(entry[1], tag))
        shown.setdefault(title, []).append((re.sub(pattern, caption, tag), png))
    return {title: (INTRODUCTIONS.get(title, ""), shown[title]) for title in SECTIONS if title in shown}

"""Writes report.html: the results of a run, its pictures with captions, its network and its config."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from quadrant_lstm.dashboard.dashboard import Dashboard
from quadrant_lstm.dashboard.pictures.history import draw_history, histories
from quadrant_lstm.files import read_json, write_atomically, yaml_with_short_lists
from quadrant_lstm.plotting import SCALE, as_png
from quadrant_lstm.run_folder import CONFIG, METRICS, PROVENANCE, REPORT, read_rows
from quadrant_lstm.signals import signals_deferred
from quadrant_lstm.text import render, step_accuracies_in


class Section(NamedTuple):
    introduction: str
    captions: Mapping[str, str]  # by patterns of the pictures' tags, whose groups they may use


BELIEF = """The frames that the network reads, and the probability of each class after each step: blue is the true
class, red a wrong prediction. A long sequence is shown as a map: darker is more probable, and the dots are the
predictions."""
SECTIONS: Mapping[str, Section] = {
    "Data": Section("", {
        "data/orderings": "The first test image and the frames that the network reads. A colour outlines the pieces of "
        "one ordering; on a larger grid, a path that begins at its dot shows an ordering.",
        "data/clips": "Frames are numbered from 1. Of a long clip, some frames are shown.",
        "data/augmentation": "Each epoch draws other versions.",
    }),
    "Test": Section("", {
        "test/confusion": "Number of samples by true and predicted class. The darker, the larger the share of the true "
        "class.",
        "test/classes": "The share of each class that is misclassified, and below it the number of samples.",
        "test/calibration": "Above, the accuracy at each level of confidence: a bar below the dashed line is "
        "overconfident. Below, the number of samples with that confidence.",
        "test/occluded_piece": "Accuracy with one piece of the image occluded, for each class; with more than nine "
        "pieces, a map of the image.",
        "test/occluded_ordering": "Accuracy with one ordering occluded in all frames; grey is without occlusion.",
        "test/occluded_step": "Bars: accuracy with that frame occluded. Lines: accuracy with all frames in that order.",
    }),
    "Mistakes": Section(
        "Misclassified test samples: the true class, the predicted class, and the confidence of the prediction.",
        {r"test/mistakes_(\d+)": r"Page \1"},
    ),
    "Predictions after each step": Section(
        BELIEF, {r"belief/example_(\d+)": r"Example \1", r"belief/mistake_(\d+)": r"Mistake \1"}
    ),
    "Inside the network": Section("", {
        "inside/filters": "Weights: red is negative, blue is positive.",
        "inside/gates": "A row is a step, a column is a unit. Gates: white is 0, dark blue is 1. The others: red is "
        "negative, blue is positive.",
        "inside/(.+)": r"Output of \1 for the input on the left: white is 0, black is the largest value of each map.",
    }),
    "Other pictures": Section("", {"(.+)": r"\1"}),
}  # fmt: skip


@signals_deferred()  # as the dashboard does while it draws
def write_run_report(folder: Path, results: Mapping[str, Any], dashboard: Dashboard) -> None:
    """`results` are those of results.json; `dashboard` has the pictures."""
    rows, best_epoch = read_rows(folder / METRICS), results["best_epoch"]
    curves = [(title, as_png(draw_history(lines, rows, best_epoch), SCALE)) for title, lines in histories(rows).items()]
    page = render(
        "run.html",
        name=folder.name,
        command=read_json(folder / PROVENANCE)["command"],
        results=results,
        step_accuracies=[results[name] for name in step_accuracies_in("test", results)],
        numbered=dashboard.numbered,
        sections={"Curves": ("", curves)} | by_section(dashboard.pictures),
        stages=dashboard.stages,
        config=yaml_with_short_lists(folder / CONFIG),
    )
    write_atomically(folder / REPORT, page.encode())


def by_section(pictures: Mapping[str, bytes]) -> dict[str, tuple[str, list[tuple[str, bytes]]]]:
    """Returns, for each section, its introduction and its pictures with captions: a picture is in the first section
    with a pattern for its tag.
    """
    shown: dict[str, list[tuple[str, bytes]]] = {}
    for tag, png in pictures.items():
        patterns = ((title, *pair) for title, section in SECTIONS.items() for pair in section.captions.items())
        title, pattern, caption = next(entry for entry in patterns if re.fullmatch(entry[1], tag))
        shown.setdefault(title, []).append((re.sub(pattern, caption, tag), png))
    return {title: (section.introduction, shown[title]) for title, section in SECTIONS.items() if title in shown}

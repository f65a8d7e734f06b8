"""Writes report.html: the results of a run, its pictures with captions, its network and its config."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quadrant_lstm.dashboard.pictures.history import draw_history, histories
from quadrant_lstm.files import read_json, write_atomically
from quadrant_lstm.metrics import step_accuracies_in
from quadrant_lstm.pages import render
from quadrant_lstm.plotting import SCALE, as_png
from quadrant_lstm.run_folder import CONFIG, METRICS, PROVENANCE, REPORT, read_rows

# For each section, patterns of the pictures' tags, and captions, which may use the groups of the pattern.
SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Data": {
        "data/orderings": "The first test image, its pieces, and the frame of each step",
        "data/clips": "Test clips",
        "data/augmentation": "Training samples, and augmented versions of them",
    },
    "Test": {
        "test/confusion": "Confusion matrix",
        "test/classes": "Share and number of misclassified samples of each class",
        "test/calibration": "Accuracy at each level of confidence",
        "test/occluded_piece": "Accuracy with a piece of the image occluded",
        "test/occluded_ordering": "Accuracy with an ordering occluded",
        "test/occluded_step": "Accuracy with a frame occluded, and with all frames in another order",
    },
    "Mistakes": {r"test/mistakes_(\d+)": r"Misclassified test samples, the most confident first (page \1)"},
    "Predictions after each step": {
        r"belief/example_(\d+)": r"Example \1: the probability of each class after each step",
        r"belief/mistake_(\d+)": r"Mistake \1: the probability of each class after each step",
    },
    "Inside the network": {
        "inside/filters": "Filters of the first convolution",
        "inside/gates": "Gates, cell state and output of the LSTM at each step",
        "inside/(.+)": r"Feature maps of \1",
    },
    "Other pictures": {"(.+)": r"\1"},
}


def write_run_report(folder: Path, results: Mapping[str, Any], pictures: Mapping[str, bytes], network: str) -> None:
    """`results` are those of results.json; `pictures` are PNGs by their tags; `network` is the table of its stages."""
    rows, best_epoch = read_rows(folder / METRICS), results["best_epoch"]
    figures = [(title, draw_history(title, curves, rows, best_epoch)) for title, curves in histories(rows).items()]
    values = {"name": folder.name, "results": results, "network": network, "config": (folder / CONFIG).read_text()}
    values["command"] = read_json(folder / PROVENANCE)["command"]
    values["step_accuracies"] = [results[name] for name in step_accuracies_in("test", results)]
    page = render(
        "run.html",
        sections={"Curves": [(title, as_png(figure, SCALE)) for title, figure in figures]} | by_section(pictures),
        **values,
    )
    write_atomically(folder / REPORT, page.encode())


def by_section(pictures: Mapping[str, bytes]) -> dict[str, list[tuple[str, bytes]]]:
    """Returns each picture with its caption, in the first section with a pattern for its tag."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    for tag, png in pictures.items():
        patterns = ((title, *pair) for title, captions in SECTIONS.items() for pair in captions.items())
        title, pattern, caption = next(entry for entry in patterns if re.fullmatch(entry[1], tag))
        found.setdefault(title, []).append((re.sub(pattern, caption, tag), png))
    return {title: found[title] for title in SECTIONS if title in found}

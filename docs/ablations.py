"""Writes docs/ablations.md and docs/ablations.png from finished sweeps: mean accuracies over seeds, after each step.

python docs/ablations.py outputs/sweeps/DATE/TIME ...
"""

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import LogLocator, NullLocator

from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.data.frames import step_accuracy_names
from quadrant_lstm.errors import UserError
from quadrant_lstm.plotting import CORRECT, GREY, SCALE, WIDTH, as_png, new_figure, style
from quadrant_lstm.run_folder import PROVENANCE
from quadrant_lstm.sweep.groups import Group, ranked_groups
from quadrant_lstm.sweep.jobs import Sweep, find_sweep, readable
from quadrant_lstm.sweep.plots import error_percent

MEASURED = ("test/accuracy", *step_accuracy_names("test", 4))
HERE = Path(__file__).parent


def label(group: Group) -> str:
    return " ".join(short(key, value) for key, value in group.swept.items())


def short(key: str, value: str) -> str:
    """Shortens e.g. data.orderings=[[1,2,3,4],[4,3,2,1]] to 1234 4321, and model/recurrent=lstm to lstm."""
    name = re.split("[./]", key)[-1]
    return readable(value) if name == "recurrent" or name.endswith("orderings") else f"{name}={value}"


def mean(group: Group, name: str) -> str:
    """Returns the mean over seeds with its 95 % interval, or nothing if the network has no such result."""
    return str(group.mean(name)) if all(name in results for results in group.results.values()) else ""


def experiment(sweep: Sweep) -> str:
    named = re.findall(r"experiment=(\w+)", " ".join(sweep.overrides))
    return named[0] if named else sweep.folder.name


def table(sweep: Sweep, groups: Sequence[Group]) -> str:
    provenance = json.loads((sweep.folder / "0" / PROVENANCE).read_text())
    seeds = max(len(group.results) for group in groups)
    lines = [
        f"## {experiment(sweep)}",
        "",
        f"`{provenance['command']}`",
        "",
        f"{seeds} seeds each; mean and 95 % interval. Commit {provenance['git']['commit'][:7]}.",
        "",
        "| | parameters | test accuracy | after step 1 | 2 | 3 | 4 |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in groups:
        parameters = next(iter(group.results.values()))["parameters"]
        cells = [label(group), f"{parameters:,}", *(mean(group, name) for name in MEASURED)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


@style
def draw(sweeps: dict[str, Sequence[Group]]) -> bytes:
    """Draws one panel per sweep: the test error of each job, and the mean of each group."""
    rows = -(-len(sweeps) // 2)
    figure = new_figure(2 * WIDTH, 2.6 * rows)
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes in panels[len(sweeps) :]:
        axes.remove()
    for axes, (title, groups) in zip(panels, sweeps.items(), strict=False):
        for position, group in enumerate(groups):
            errors = [error_percent(results["test/accuracy"]) for results in group.results.values()]
            axes.plot(errors, [position] * len(errors), "o", color=GREY, markersize=3)
            axes.plot(statistics.mean(errors), position, "|", color=CORRECT, markersize=12, markeredgewidth=2)
        axes.set_yticks(range(len(groups)), [label(group) for group in groups])
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(title=title, xlabel="test error, %")
        axes.grid(alpha=0.3, axis="x")
    return as_png(figure, SCALE)


def main(sweeps: Sequence[Sweep]) -> None:
    finished = {sweep: [group for group in ranked_groups(sweep.jobs) if group.results] for sweep in sweeps}
    for sweep, groups in finished.items():
        if not groups:
            raise UserError(f"sweep: {sweep.folder}: no job has finished; first: python train.py sweep={sweep.folder}")
    tables = "\n".join(table(sweep, groups) for sweep, groups in finished.items())
    (HERE / "ablations.md").write_text(
        "# Effect of the recurrent layer and the orderings\n\n"
        "Made by `python docs/ablations.py outputs/sweeps/...` from the sweeps whose commands are given below; "
        "ranked by the validation accuracy. The accuracy after a step is that of the prediction from the state at that "
        "step; the network is trained on the prediction after the last step only.\n\n"
        f"![Test errors](ablations.png)\n\n{tables}"
    )
    (HERE / "ablations.png").write_bytes(draw({experiment(sweep): groups for sweep, groups in finished.items()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes docs/ablations.md and its picture from finished sweeps.")
    parser.add_argument("sweeps", nargs="+", help="the folders of the sweeps")
    given = parser.parse_args()
    with handle_errors():
        main([find_sweep(sweep) for sweep in given.sweeps])

"""Compares the epoch that validation chooses with the last one, on images that neither was chosen on.

    python train.py -m experiment=fast seed=1,2,3,4,5 data.validation_images=10000 \
        +trainer.callbacks.halves._target_=docs.keep.Halves
    python -m docs.keep outputs/sweeps/DATE/TIME ...

`Halves` counts the correct images of each half of the validation images after each epoch. The script chooses the epoch
on one half, as keep=best does on all, and takes its accuracy and that of the last epoch on the other half; then the
halves change roles. docs/measured/keep.csv has a row for each role of each seed; its table stands in docs/results.md
after the line <!-- keep -->.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch

from docs.measurements import MEASURED, ORIGIN, Row, csv_link, experiment_of, measured_at, origin_of, points, table_row
from docs.tables import END
from quadrant_lstm.callbacks.checkpoints import write_row
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import csv_text, read_csv, read_yaml, write_atomically
from quadrant_lstm.run_folder import CONFIG, read_rows
from quadrant_lstm.sweep.sweep_folder import Mean, Sweep, find_sweep

PAGE = Path(__file__).with_name("results.md")
START = "<!-- keep -->\n"
NAME = "keep"
FILE = f"{NAME}.csv"
HALVES = "halves.csv"  # in a run folder
OPTION = "+trainer.callbacks.halves._target_=docs.keep.Halves"
COLUMNS = ("epoch", "first", "second", "images")


class Halves(pl.Callback):
    """Counts the images at even and at odd places among the validation images; for a run in one process."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        correct = torch.cat([scores.correct[:, -1] for scores in module.scores["val"]])
        images = len(correct) // 2
        first, second = (int(correct[start::2][:images].sum()) for start in (0, 1))
        row = dict(zip(COLUMNS, (trainer.current_epoch + 1, first, second, images), strict=True))
        write_row(Path(trainer.default_root_dir, HALVES), COLUMNS, row)


class Choice(NamedTuple):
    """The epoch that one half chooses, and the correct images of the other half after it and after the last epoch."""

    experiment: str
    seed: int
    best_epoch: int
    epochs: int
    correct_after_best: int
    correct_after_last: int
    images: int
    commit: str
    processor: str


def choices(experiment: str, seed: int, rows: Sequence[dict[str, str]], origin: dict[str, str]) -> Iterable[Choice]:
    for chosen_on, other in (("first", "second"), ("second", "first")):
        best = max(rows, key=lambda row: (int(row[chosen_on]), int(row["epoch"])))  # ties go to the later epoch
        correct = int(best[other]), int(rows[-1][other])
        yield Choice(experiment, seed, int(best["epoch"]), len(rows), *correct, int(rows[-1]["images"]), **origin)


def choices_of(sweep: Sweep) -> Iterable[Choice]:
    for job in sweep.jobs:
        if not job.results():
            continue
        if not (rows := read_rows(job.folder / HALVES)):
            raise UserError(f"{job.folder}: has no {HALVES}; train it with {OPTION}, and with validation images.")
        yield from choices(experiment_of(sweep), read_yaml(job.folder / CONFIG).seed, rows, origin_of(job))


def line(experiment: str, found: Sequence[Choice]) -> str:
    """Returns a line of the table: means over seeds, of each seed's mean over both halves."""
    seeds = {choice.seed: [each for each in found if each.seed == choice.seed] for choice in found}
    if len(seeds) < 3 or len(found) > 2 * len(seeds):
        raise UserError(f"experiment={experiment}: give three or more jobs, each with its own seed.")
    if len({(each.epochs, each.images) for each in found}) > 1:
        raise UserError(f"experiment={experiment}: give jobs with the same numbers of epochs and of validation images.")

    def per_seed(count: Callable[[Choice], int]) -> tuple[float, ...]:
        return tuple(statistics.mean(count(each) / each.images for each in halves) for halves in seeds.values())

    best = Mean(per_seed(lambda each: each.correct_after_best))
    last = Mean(per_seed(lambda each: each.correct_after_last))
    gain = points(per_seed(lambda each: each.correct_after_last - each.correct_after_best), digits=3)
    epochs = ", ".join(str(each.best_epoch) for each in found)
    return table_row(f"`{experiment}`", len(seeds), f"{epochs} of {found[0].epochs}", best, last, gain)


def read() -> list[Choice]:
    return list(map(choice_in, read_csv(MEASURED / FILE)))


def choice_in(row: Row) -> Choice:
    texts = ("experiment", *ORIGIN)
    values: dict[str, Any] = {key: value if key in texts else int(value) for key, value in row.items()}
    return Choice(**values)


def added(earlier: Sequence[Choice], found: Sequence[Choice]) -> list[Choice]:
    """Returns both; new choices replace earlier ones of the same experiment and seed."""
    again = {(each.experiment, each.seed) for each in found}
    return [*(each for each in earlier if (each.experiment, each.seed) not in again), *found]


def fill(text: str, found: Sequence[Choice]) -> str:
    """Returns the text of a page with the table of the choices written anew."""
    if text.count(START) != 1:
        raise UserError(f"{PAGE}: needs the line {START.strip()} once.")
    experiments = dict.fromkeys(each.experiment for each in found)
    lines = [line(name, [each for each in found if each.experiment == name]) for name in experiments]
    head = "| | seeds | epochs chosen | chosen epoch | last epoch | last minus chosen |\n|---|---|---|---|---|---|"
    caption = f"{measured_at([each._asdict() for each in found])}; each role of a seed is a row of {csv_link(NAME)}."
    before, _, rest = text.partition(START)
    return before + START + "\n" + "\n".join([head, *lines, "", caption]) + "\n\n" + END + rest.partition(END)[2]


def main(sweeps: Sequence[Sweep]) -> None:
    found = added(read(), [choice for sweep in sweeps for choice in choices_of(sweep)])
    page = fill(PAGE.read_text(), found)
    write_atomically(MEASURED / FILE, csv_text(Choice._fields, [each._asdict() for each in found]).encode())
    PAGE.write_text(page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compares the epoch that validation chooses with the last one.")
    parser.add_argument("sweeps", nargs="+", help="the folders of sweeps with the option of the script's first lines")
    given = parser.parse_args()
    with handle_errors():
        main([find_sweep(sweep) for sweep in given.sweeps])

"""Prints predictions as a table, or writes them to a CSV file or as JSON lines.

A CSV file has a column for the probability of each class, and then those after each earlier step, such as `step1_0`.
A line of JSON has a list of probabilities for each step. An image in which nothing is drawn is blank: it has no
prediction and no probabilities. In a CSV file, a name that a spreadsheet would run as a formula begins with an
apostrophe.
"""

import contextlib
import csv
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from quadrant_lstm.errors import UserError, printable
from quadrant_lstm.files import csv_cell, expanded

log = logging.getLogger(__name__)
FORMATS = (".csv", ".jsonl")
TABLE_HEADER = "prediction  confidence  second  confidence  after each step  file"
Classes = Sequence[int | str]  # the names of the classes, or their numbers if they have no names


class Prediction(NamedTuple):
    name: str
    steps: list[list[float]]  # the probabilities of the classes after each step; empty if the image is blank
    label: int | None = None  # the class, if it is known
    note: str = ""  # what makes the prediction doubtful

    @property
    def predicted(self) -> int | None:
        return most_probable(self.steps[-1]) if self.steps else None


Write = Callable[[Prediction], None]


def most_probable(probabilities: list[float]) -> int:
    return probabilities.index(max(probabilities))


def check_output(output: str | None, suffixes: Sequence[str]) -> None:
    if output is None:
        return
    if Path(output).suffix.lower() not in suffixes:
        raise UserError(f"output: {output} does not end in {' or '.join(suffixes)}; write such a name.")
    file = expanded(output)
    if file.is_dir():
        raise UserError(f"output: {output} is a folder; write the path of a file.")
    folder = file.absolute().parent
    if not folder.is_dir():
        reason = (
            "is not a folder; write another path"
            if folder.exists()
            else "does not exist; create it, or write another path"
        )
        raise UserError(f"output: the folder of {output} {reason}.")


@contextlib.contextmanager
def open_output(output: str | None, num_steps: int, classes: Classes) -> Iterator[Write]:
    """Yields a function that prints a prediction, or writes it to the file, which replaces an older one at the end.

    Classes are written by their names.
    """
    if output is None:
        log.info(TABLE_HEADER)
        yield lambda prediction: log.info(table_row(prediction, classes))
        return
    output = str(expanded(output))
    with contextlib.ExitStack() as stack:
        try:
            part = f"{output}.part"
            file = stack.enter_context(open(part, "w", newline="", encoding="utf-8"))
        except OSError as error:
            raise UserError(f"output: {output} cannot be written ({error.strerror}); write another path.") from error
        if output.lower().endswith(".csv"):
            yield csv_writer(file, num_steps, classes)
        else:
            yield lambda prediction: print(json.dumps(json_row(prediction, classes)), file=file)
    os.replace(part, output)


def table_row(prediction: Prediction, classes: Classes) -> str:
    name = prediction.name + ("" if prediction.label is None else f", class {classes[prediction.label]}")
    name += f" ({prediction.note})" if prediction.note else ""
    if not prediction.steps:
        return printable(f"{'blank':{len(TABLE_HEADER) - len('file')}}{name}")
    last = prediction.steps[-1]
    first, second = sorted(range(len(last)), key=last.__getitem__, reverse=True)[:2]
    steps = " ".join(str(classes[most_probable(probabilities)]) for probabilities in prediction.steps)
    one, other = classes[first], classes[second]
    row = f"{one:<10}  {100 * last[first]:8.1f} %  {other:<6}  {100 * last[second]:8.1f} %  {steps:<15}  {name}"
    return printable(row)  # also without line breaks, which a name may contain


def csv_writer(file: TextIO, num_steps: int, classes: Classes) -> Write:
    writer = csv.writer(file)
    earlier = [f"step{step}_{name}" for step in range(1, num_steps) for name in classes]
    writer.writerow(["file", "class", "prediction", *map(csv_cell, classes), *earlier])

    def write(prediction: Prediction) -> None:
        steps: Sequence[Sequence[object]] = prediction.steps or [[""] * len(classes)]
        *before, last = steps
        before += [[""] * len(classes)] * (num_steps - len(steps))  # of a clip that is shorter than others
        names = (None if number is None else classes[number] for number in (prediction.label, prediction.predicted))
        writer.writerow([csv_cell(prediction.name), *map(csv_cell, names), *last, *itertools.chain(*before)])

    return write


def json_row(prediction: Prediction, classes: Classes) -> dict[str, Any]:
    known = {} if prediction.label is None else {"class": classes[prediction.label]}
    predicted = None if prediction.predicted is None else classes[prediction.predicted]
    return {"file": prediction.name, **known, "prediction": predicted, "probabilities": prediction.steps}

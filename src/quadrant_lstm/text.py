"""Words and prints texts: numbers, names of metrics, overrides, tables and log records on the terminal, HTML pages.

Imports no torch.
"""

import base64
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import rich

from quadrant_lstm.errors import printable

# Numbers and pages


def render(template: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # here, because every command imports this module

    options: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True}
    environment = Environment(loader=PackageLoader("quadrant_lstm"), lstrip_blocks=True, **options)
    environment.filters |= {"duration": duration, "percent": percent, "png_source": png_source}
    return environment.get_template(template).render(values)


def duration(seconds: float) -> str:
    """Returns e.g. "1:23:45" for 5025."""
    return str(timedelta(seconds=round(seconds)))


def percent(share: float) -> str:
    """Returns e.g. "97.96 %" for 0.9796."""
    return f"{share:.2%}".replace("%", " %")


def plural(noun: str) -> str:
    return noun if noun.endswith("series") else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """Returns e.g. "1 job" or "1,200 jobs"."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def png_source(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


# Names of metrics


NUM_CLASSES_OF_TOP5 = 10  # from which on a run has a top-5 accuracy


MOST_STEPS = 128  # after which a run has an accuracy; of longer sequences, so many evenly spaced ones, with the last


def measured_steps(num_steps: int) -> list[int]:
    """Returns the numbers of the steps after which a run has an accuracy."""
    number = min(num_steps, MOST_STEPS)
    return [(place + 1) * num_steps // number for place in range(number)]


def step_accuracy_names(split: str, num_steps: int) -> tuple[str, ...]:
    """Returns e.g. "val/accuracy_step_1" to "val/accuracy_step_4" for the split "val" and four steps."""
    return tuple(f"{split}/accuracy_step_{step}" for step in measured_steps(num_steps))


def step_accuracies_in(split: str, values: Iterable[str]) -> list[str]:
    """Returns those of the names that step_accuracy_names gives for some number of steps, in the order of the steps."""
    start = f"{split}/accuracy_step_"
    return sorted((name for name in values if name.startswith(start)), key=lambda name: int(name.removeprefix(start)))


# Overrides, as they are typed: KEY=VALUE


def assigned(overrides: Iterable[str]) -> dict[str, str]:
    """Returns the values that overrides assign, by their keys."""
    return dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)


def quoted(folder: Path | str) -> str:
    """Returns the path as a quoted string of Hydra's override grammar."""
    # a backslash stands for itself, except before a quote
    text = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), str(folder))
    return "'" + text.replace("${", "\\${") + "'"


def with_own_network(overrides: list[str]) -> list[str]:
    """Replaces the whole default model by a class that is typed as model._target_, which does not take its keys."""
    own = any(re.match(r"\+*model\._target_=(?!quadrant_lstm\.)", override) for override in overrides)
    if not own or any(re.match(r"\+*model=", override) for override in overrides):
        return overrides
    return ["~model", *(re.sub(r"^\+*(?=model\.)", "+", override) for override in overrides)]


# The terminal, above the progress bar if there is one


Item = TypeVar("Item")


class ConsoleHandler(logging.Handler):
    """Prints through the console that draws the progress bar, so that lines and bar do not overwrite each other."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


class PrintableFormatter(logging.Formatter):
    """Formats records for a log file, which may be printed on a terminal later."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), kept="\n\t")


def say(text: str) -> None:
    rich.get_console().print(printable(text, kept="\n\t"), markup=False, highlight=False, soft_wrap=True)


def with_progress(
    items: Iterable[Item], description: str, total: int | None = None, transient: bool = False
) -> Iterable[Item]:
    """Shows a progress bar on stderr, if that is a terminal: stdout holds the results. A transient one vanishes."""
    if not sys.stderr.isatty():  # where rich 14 would print an empty line
        return items
    from rich.console import Console
    from rich.progress import track  # not at start-up

    return track(items, description, total, console=Console(stderr=True), transient=transient)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Pads the cells of each column to one width. Numbers are aligned on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def pad(cell: str, width: int) -> str:
        return cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)

    return "\n".join("  ".join(map(pad, row, widths)).rstrip() for row in rows)

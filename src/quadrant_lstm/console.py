"""Prints log records and tables on the terminal, above the progress bar if there is one. Imports no torch."""

import logging
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

import rich

from quadrant_lstm.errors import printable

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
    from rich.console import Console
    from rich.progress import track  # not at start-up

    disable = not sys.stderr.isatty()
    return track(items, description, total, console=Console(stderr=True), transient=transient, disable=disable)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Pads the cells of each column to one width. Numbers are aligned on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def pad(cell: str, width: int) -> str:
        return cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)

    return "\n".join("  ".join(map(pad, row, widths)).rstrip() for row in rows)

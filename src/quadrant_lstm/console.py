"""Prints log records and tables on the terminal, above the progress bar if there is one. Imports no torch."""

import logging
from collections.abc import Sequence

import rich


class ConsoleHandler(logging.Handler):
    """Prints through the console that draws the progress bar, so that lines and bar do not overwrite each other."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say(text: str) -> None:
    rich.get_console().print(text, markup=False, highlight=False, soft_wrap=True)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Pads the cells of each column to one width. Numbers are aligned on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def pad(cell: str, width: int) -> str:
        return cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)

    return "\n".join("  ".join(map(pad, row, widths)).rstrip() for row in rows)

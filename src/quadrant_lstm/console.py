"""Prints log records as lines on the terminal, above the progress bar if there is one. Imports no torch."""

import logging

import rich


class ConsoleHandler(logging.Handler):
    """Prints through the console that draws the progress bar, so that lines and bar do not overwrite each other."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say(text: str) -> None:
    rich.get_console().print(text, markup=False, highlight=False, soft_wrap=True)

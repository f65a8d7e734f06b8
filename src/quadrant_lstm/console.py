"""Log records -> lines on the terminal, above a progress bar if there is one. Imports no torch."""

import logging

import rich


class ConsoleHandler(logging.Handler):
    """Prints through the console that draws the progress bar, so that neither tears the other."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say(text: str) -> None:
    rich.get_console().print(text, markup=False, highlight=False, soft_wrap=True)

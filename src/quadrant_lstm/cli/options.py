"""Reads arguments of the command line: Hydra's options, which it checks, and the values of single keys."""

import sys
from argparse import Namespace
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser

from quadrant_lstm.errors import UserError


def parse(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """Returns Hydra's options, with the overrides wherever they stand, and the words that Hydra does not know."""
    parser: Any = get_args_parser()
    parser.error = refuse  # argparse would print its usage
    return parser.parse_known_intermixed_args(arguments)


def refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; python {sys.argv[0]} --hydra-help lists the options.")


def check_options(arguments: list[str]) -> Namespace:
    options, unknown = parse(arguments)
    if unknown:
        raise UserError(f"{unknown[0]}: there is no such option; write keys as KEY=VALUE, e.g. trainer.max_epochs=5.")
    if options.experimental_rerun:
        raise UserError("--experimental-rerun: is not supported; resume a run with run=FOLDER.")
    if (options.resolve or options.package) and not options.cfg:
        raise UserError("--resolve, --package: are for --cfg; add --cfg job, or leave them out.")
    if (options.multirun or value_of("sweep", arguments)) and (options.cfg or options.info):
        name = "--cfg" if options.cfg else "--info"
        given = "-m" if options.multirun else "sweep="
        raise UserError(f"{name}: shows the config of one run; leave out {given}, or list the jobs with plan=true.")
    return options


def only_shows(arguments: list[str]) -> bool:
    """Tells whether Hydra prints something, such as --help, and starts no run."""
    if "--version" in arguments:  # parse would print it
        return True
    options = parse(arguments)[0]
    return bool(options.help or options.hydra_help or options.cfg or options.info)


def value_of(key: str, arguments: list[str]) -> str | None:
    """Returns the last value of the key, which may be typed more than once, or None if it is missing or null.

    Raises UserError for an empty value.
    """
    values = [argument.partition("=")[2] for argument in arguments if argument.lstrip("+").startswith(f"{key}=")]
    if "" in values:
        raise UserError(f"{key}: is empty; give a value, or leave it out.")
    return values[-1] if values and values[-1] != "null" else None


def without(key: str, arguments: list[str]) -> list[str]:
    return [argument for argument in arguments if not argument.lstrip("+").startswith(f"{key}=")]

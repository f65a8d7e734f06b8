"""Turns the arguments of train.py, and those of the scripts that read a run, into Hydra's."""

import re

from hydra.core.override_parser.overrides_parser import OverridesParser

from quadrant_lstm.cli.explain import check_choices
from quadrant_lstm.cli.options import check_options, only_shows, value_of, without
from quadrant_lstm.cli.resume import resume_run, resume_sweep
from quadrant_lstm.config.read import trusted_modules
from quadrant_lstm.errors import UserError
from quadrant_lstm.processes.torchrun import join
from quadrant_lstm.run_folder import BEST, find_run
from quadrant_lstm.text import quoted, with_own_network


def hydra_arguments(arguments: list[str]) -> list[str]:
    """Replaces `run=PATH` (resume a run), `sweep=PATH` (resume a sweep) and `plan=true` (only show a sweep's jobs)."""
    if plan := value_of("plan", arguments):
        if plan != "true":
            raise UserError(f"plan: {plan!r} is not true; write plan=true, or leave it out.")
        if value_of("run", arguments):
            raise UserError("plan: shows the jobs of a sweep, but run= resumes one run; leave one out.")
        return [*hydra_arguments(["-m", *without("plan", arguments)]), "hydra.sweeper.plan=true"]
    arguments = [without_own_package(argument) for argument in arguments]
    options = check_options(arguments)
    check_choices(arguments)
    run, sweep = value_of("run", arguments), value_of("sweep", arguments)
    if run and sweep:
        raise UserError("run: cannot be combined with sweep=; run= resumes one run, sweep= a sweep: leave one out.")
    trust = value_of("trust", arguments)
    if trust and not run:
        raise UserError("trust: is for the config of a run folder; add run=PATH, or leave it out.")
    if run:
        return resume_run(run, without("trust", without("run", arguments)), trusted_modules(trust))
    if sweep and not only_shows(arguments):
        return resume_sweep(sweep, without("sweep", arguments))
    if not options.multirun:
        check_single_values(options.overrides, "add -m to run a sweep over them")
    overrides = without("sweep", options.overrides)
    if value_of("init", overrides) == "latest":  # found once, because each job of a sweep would find the one before
        overrides = [f"init={quoted(find_run('latest', BEST).absolute())}", *without("init", overrides)]
    words = [argument for argument in arguments if argument not in options.overrides]
    return [*words, *with_own_network(overrides)]  # Hydra's parser wants the options first


def reader_arguments(arguments: list[str]) -> list[str]:
    """Returns Hydra's arguments of a script that reads a run, which has one process."""
    if join():  # so that the error is reported once
        raise UserError("torchrun: only train.py works in several processes; start this script with python.")
    options = check_options(arguments)
    if options.multirun:
        raise UserError("-m: is for sweeps of train.py, but this script reads one run; leave it out.")
    check_single_values(with_quoted_paths(options.overrides), "write one of them")
    return with_quoted_paths(arguments)


def with_quoted_paths(arguments: list[str]) -> list[str]:
    """Quotes the values of keys of evaluate.py, predict.py and export.py that name files, never lists, or modules."""
    pattern = r"(run|images|output|model|trust)=(?!null$|['\"])(.+)"
    return [
        f"{path[1]}={quoted(path[2])}" if (path := re.fullmatch(pattern, argument, re.DOTALL)) else argument
        for argument in arguments
    ]


def without_own_package(override: str) -> str:
    """Shortens e.g. trainer/logger@trainer.logger=csv to trainer/logger=csv, which is all that Hydra understands."""
    group, at, rest = override.partition("@")
    package = group.replace("/", ".") + "="
    return f"{group}={rest.removeprefix(package)}" if at and rest.startswith(package) else override


def check_single_values(overrides: list[str], remedy: str) -> None:
    lists = [override for override in overrides if "=" in override and "," in override]
    for override in OverridesParser.create().parse_overrides(lists):
        if override.is_sweep_override():
            key, _, values = str(override.input_line).partition("=")
            raise UserError(f"{key}: {values} are several values; {remedy}.")

"""Turns the command that torchrun repeats in each process into one of a run that all processes share."""

import os
import re
import sys
from pathlib import Path

from quadrant_lstm.cli.arguments import hydra_arguments
from quadrant_lstm.cli.options import only_shows, parse, value_of, without
from quadrant_lstm.errors import UserError
from quadrant_lstm.processes.torchrun import Meeting
from quadrant_lstm.run_folder import CONFIG, find_run, locked
from quadrant_lstm.text import quoted


def shared_arguments(arguments: list[str], meeting: Meeting) -> list[str]:
    """Returns Hydra's arguments. Exits if the first process only shows something, such as --help."""
    check_arguments(arguments)
    if meeting.rank:
        if only_shows(arguments):
            sys.exit(0)
        return arguments_in(meeting.wait_for_decision(), arguments, keeps_config=True)
    run, earlier = value_of("run", arguments), meeting.earlier
    if not earlier or not Path(earlier).exists():  # the folder of a run that was refused is removed
        earlier = str(find_run(run).absolute()) if run else None
    if earlier:
        with locked(Path(earlier)):  # raises UserError if another process works in it
            pass
    words = arguments_in(earlier, arguments, keeps_config=earlier is not None and Path(earlier, CONFIG).exists())
    if earlier:  # otherwise BeforeRun decides
        meeting.decide(earlier)
    return words


def arguments_in(folder: str | None, arguments: list[str], keeps_config: bool) -> list[str]:
    """Returns Hydra's arguments for a run in that folder, or in a new one.

    A process that is started again repeats what was typed: the config of the folder alone would not be trusted to name
    the user's own classes.
    """
    if folder and value_of("run", arguments):
        arguments = [f"run={folder}", *without("run", arguments)]
        return hydra_arguments(with_devices(arguments))
    words = hydra_arguments(with_devices(arguments))
    place = [f"hydra.run.dir={quoted(Path(folder))}"] if folder else []
    return [*words, *place, *(["hydra.output_subdir=null"] if keeps_config else [])]


def check_arguments(arguments: list[str]) -> None:
    if parse(arguments)[0].multirun or value_of("sweep", arguments) or value_of("plan", arguments):
        raise UserError("-m: a sweep starts the processes of its jobs itself; run it without torchrun, or on SLURM.")


def with_devices(arguments: list[str]) -> list[str]:
    """Adds the numbers of devices and of machines. Raises UserError if others were typed."""
    devices, machines, total = (os.environ[f"{name}WORLD_SIZE"] for name in ("LOCAL_", "GROUP_", ""))
    if int(devices) * int(machines) != int(total):
        raise UserError(
            f"--nproc-per-node: {devices} on this machine, but {total} processes on {machines} machines; start the "
            "same number on each."
        )
    strategy = value_of("trainer.strategy", arguments) or ""
    if re.search("spawn|fork|notebook", strategy):
        raise UserError(f"trainer.strategy: {strategy} starts processes, but torchrun has started them; leave it out.")
    started = {"trainer.devices": devices, "trainer.num_nodes": machines}
    for key, number in started.items():
        typed = value_of(key, arguments)
        if typed not in (None, number, "auto", "-1"):
            raise UserError(f"{key}: {typed}, but torchrun started {number}; leave it out.")
        arguments = without(key, arguments)
    return [*arguments, *(f"{key}={number}" for key, number in started.items())]

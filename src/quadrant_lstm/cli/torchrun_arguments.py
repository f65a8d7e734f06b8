"""Turns the command that torchrun repeats in each process into one of a run that all processes share."""

import os
import sys
from pathlib import Path

from quadrant_lstm.cli.arguments import MULTIRUN, hydra_arguments, value_of, without
from quadrant_lstm.errors import UserError
from quadrant_lstm.processes.torchrun import Decision, Meeting
from quadrant_lstm.run_folder import find_run, quoted


def shared_arguments(arguments: list[str], meeting: Meeting) -> list[str]:
    """Returns Hydra's arguments. Exits if the first process has reported a mistake."""
    if meeting.rank == 0:
        check_arguments(arguments)
        if meeting.earlier:
            arguments = [f"run={meeting.earlier}"]
        words = hydra_arguments(with_devices(arguments))
        if run := value_of("run", arguments):
            meeting.decide(Decision(str(find_run(run).absolute()), resumes=True))
        return words  # of a new run, BeforeRun decides on the folder
    decision = meeting.wait_for_decision()
    if not decision.folder:
        sys.exit(2)
    if decision.resumes:
        typed = without("run", arguments) if value_of("run", arguments) else []
        return hydra_arguments(with_devices([f"run={decision.folder}", *typed]))
    folder = quoted(Path(decision.folder))
    return [*hydra_arguments(with_devices(arguments)), f"hydra.run.dir={folder}", "hydra.output_subdir=null"]


def check_arguments(arguments: list[str]) -> None:
    if MULTIRUN & set(arguments) or value_of("sweep", arguments) or value_of("plan", arguments):
        raise UserError("-m: a sweep starts the processes of its jobs itself; run it without torchrun, or on SLURM.")


def with_devices(arguments: list[str]) -> list[str]:
    """Adds the numbers of devices and of nodes. Raises UserError if others were typed."""
    started = {"trainer.devices": os.environ["LOCAL_WORLD_SIZE"], "trainer.num_nodes": os.environ["GROUP_WORLD_SIZE"]}
    for key, number in started.items():
        typed = value_of(key, arguments)
        if typed not in (None, number, "auto", "-1"):
            raise UserError(f"{key}: {typed}, but torchrun started {number}; leave it out.")
        arguments = without(key, arguments)
    return [*arguments, *(f"{key}={number}" for key, number in started.items())]

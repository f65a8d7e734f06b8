"""Measures how train.py starts, trains and resumes with one and two processes: by itself, and under torchrun.

python -m quadrant_lstm.benchmark.processes       in the project's root; a quarter of an hour

The network of the question in fp32, on CPUs, with 64 images in a training step of all processes. The two commands
alternate; a first round warms up and does not count. A cell holds the median and the range. The second table is
computed: how long an all-reduce of the gradients takes between several machines, and its share of a training step on
one process, which is measured. Writes processes.md.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quadrant_lstm.benchmark.all_reduce import computed_table
from quadrant_lstm.benchmark.command import new_parser, write_page
from quadrant_lstm.benchmark.report import Rounds, median_and_range, row
from quadrant_lstm.cli.command import check_project_root, handle_errors
from quadrant_lstm.config.check import check_value
from quadrant_lstm.kinds import Count
from quadrant_lstm.run_folder import LAST, RESULTS

OWN, TORCHRUN = "python train.py", "torchrun"
ALL = (
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=1",
    "trainer.limit_val_batches=5",
    "trainer.limit_test_batches=5",
    "~trainer.callbacks.dashboard",
)
BATCH_LOSS = "train/batch_loss"
IMAGES_PER_EPOCH = 19_200


def main() -> None:
    options = new_parser(__doc__, rounds=5).parse_args()
    check_value("--rounds", options.rounds, Count)
    check_project_root("benchmark.processes")
    measured: dict[str, Rounds] = defaultdict(Rounds)
    measure_round(defaultdict(Rounds))  # warms up
    for number in range(options.rounds):
        measure_round(measured)
        print(f"round {number + 1}/{options.rounds}", flush=True)
    speeds = measured["speed"]
    step_seconds = {batch: batch / speeds.median(name) for batch, name in ((64, f"{OWN} 1"), (512, "batch 512"))}
    write_page(options.out, "processes", [*measured_table(measured), "", *computed_table(step_seconds)])


def measure_round(measured: dict[str, Rounds]) -> None:
    for devices in (1, 2):
        for way in (OWN, TORCHRUN):
            seconds, speed = time_run(way, devices, batch_size=64)
            measured["start"].add(f"{way} {devices}", seconds)
            measured["speed"].add(f"{way} {devices}", speed)
    measured["speed"].add("batch 512", time_run(OWN, 1, batch_size=512)[1])
    measured["restart"].add(TORCHRUN, time_restart())


def time_run(way: str, devices: int, batch_size: int) -> tuple[float, float]:
    """Returns the seconds from the command to the first training step, and the images per second of the last epoch."""
    batch = (
        f"data.batch_size={batch_size // devices}",
        f"trainer.limit_train_batches={IMAGES_PER_EPOCH // batch_size}",
    )
    with tempfile.TemporaryDirectory() as folder:
        command = command_of(way, devices, folder, *batch, "trainer.max_epochs=2")
        start = time.time()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        speed = json.loads(Path(folder, RESULTS).read_text())["samples_per_second"]
        return min(first_steps(folder)) - start, speed


def time_restart() -> float:
    """Kills one of two processes, and returns the seconds from there to the next training step."""
    with tempfile.TemporaryDirectory() as folder:
        batch = ("data.batch_size=32", "trainer.limit_train_batches=20", "trainer.max_epochs=10")
        command = command_of(TORCHRUN, 2, folder, *batch)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as agent:
            while agent.poll() is None and not Path(folder, LAST).exists():
                time.sleep(0.1)
            *_, last = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
            start = time.time()
            os.kill(int(last), signal.SIGKILL)
        if agent.returncode:
            raise RuntimeError(f"torchrun ended with exit status {agent.returncode}.")
        return max(first_steps(folder)) - start


def command_of(way: str, devices: int, folder: str, *overrides: str) -> list[str]:
    words = [*ALL, *overrides, f"hydra.run.dir={folder}"]
    if way == OWN:
        return [sys.executable, "train.py", f"trainer.devices={devices}", *words]
    agent = ["torch.distributed.run", "--max-restarts=1", f"--nproc-per-node={devices}"]
    return [sys.executable, "-m", *agent, "train.py", *words]


def first_steps(folder: str) -> list[float]:
    """Returns when the first training step of each start was logged."""
    times = []
    for file in Path(folder).glob("events.*"):
        events = EventAccumulator(str(file)).Reload()
        if BATCH_LOSS in events.Tags()["scalars"]:
            times.append(events.Scalars(BATCH_LOSS)[0].wall_time)
    return times


def measured_table(measured: dict[str, Rounds]) -> Iterator[str]:
    yield row("median (minimum to maximum)", f"`{OWN}`", f"`{TORCHRUN}`")
    yield "|---|---|---|"
    for title, rounds, digits in (
        ("images per second", measured["speed"], 0),
        ("seconds from the command to the first training step", measured["start"], 1),
    ):
        for devices, name in {1: "one process", 2: "two processes"}.items():
            cells = (median_and_range(rounds[f"{way} {devices}"], digits) for way in (OWN, TORCHRUN))
            yield row(f"{title}, {name}", *cells)
    restart = median_and_range(measured["restart"][TORCHRUN])
    yield row("seconds from the kill of one of two processes to the next training step", "the run ends", restart)


if __name__ == "__main__":
    with handle_errors():
        main()

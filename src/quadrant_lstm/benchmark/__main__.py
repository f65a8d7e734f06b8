"""Measures the network of the question on this machine: in this project, in plain PyTorch, and in Keras.

python -m pip install -e ".[bench]" && python -m quadrant_lstm.benchmark       in the project's root; an hour

Each peer runs in a process of its own. Only one computes at a time, and each has its turn in every round, so that noise
on the machine affects all alike. A first round warms up and does not count. Writes benchmark.md, .json and .png.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from quadrant_lstm.benchmark.peers import PEERS, TorchPeer, ours
from quadrant_lstm.benchmark.report import EPOCH, WHOLE_EPOCHS, Rounds, picture, table
from quadrant_lstm.benchmark.worker import Worker, WorkerError
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import RESULTS, last_epoch

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}
TRAIN_PY_OVERRIDES = (  # of the runs of train.py whose epochs are measured
    ("trainer.precision=32-true",),
    ("trainer.precision=bf16-mixed",),
    ("trainer.precision=bf16-mixed", "data.batch_size=512"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of steps, after one that warms up")
    parser.add_argument("--epochs", type=int, default=5, help="rounds of whole epochs; 0 for none")
    parser.add_argument("--steps", type=int, default=30, help="training steps of 64 images per round")
    parser.add_argument("--out", type=Path, default=Path("outputs", "benchmark"), help="folder of the results")
    options = parser.parse_args()
    for name, minimum in {"rounds": 1, "epochs": 0, "steps": 1}.items():
        if (value := getattr(options, name)) < minimum:
            default = parser.get_default(name)
            raise UserError(f"--{name}: {value} is less than {minimum}; write more, or leave it out for {default}.")
    if not Path("conf/train.yaml").is_file():
        raise UserError("benchmark: there is no conf/train.yaml here; run it in the project's root.")
    options.out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, Rounds] = defaultdict(Rounds)
    workers, notes = start_workers()
    try:
        for number in range(options.rounds + 1):
            measure_round(workers, measured, options.steps, warm_up=number == 0)
            print(f"round {number}/{options.rounds}" if number else "warmed up", flush=True)
        for number in range(options.epochs):
            measure_epochs(workers, measured)
            measure_fast_experiment(measured, seed=number + 1)
            print(f"epoch {number + 1}/{options.epochs}", flush=True)
    finally:
        for worker in workers.values():
            worker.stop()
    for kind in PRECISION if options.epochs else ():
        for _ in range(options.epochs):
            measure_trainer(kind, measured)
        print(f"trainer's overhead, {kind}", flush=True)
    if not options.epochs:
        notes.append("whole epochs, experiment=fast and the trainer's overhead: --epochs is 0")
    if not torch.cuda.is_available():
        notes.append("a GPU: torch finds none")
    write(options.out, measured, notes)


def start_workers() -> tuple[dict[str, Worker], list[str]]:
    """Returns the peers that can be built, by name, and the reasons why others cannot."""
    workers, notes = {}, []
    for name in PEERS:
        try:
            workers[name] = Worker(name)
        except WorkerError as reason:
            notes.append(f"{name}: {reason}")
            print(f"not measured: {notes[-1]}")
    return workers, notes


def measure_round(workers: dict[str, Worker], measured: dict[str, Rounds], steps: int, warm_up: bool) -> None:
    def record(key: str, name: str, value: float) -> None:
        if not warm_up:
            measured[key].add(name, value)

    for name, worker in workers.items():
        if name.startswith("matrix"):
            seconds = worker.ask("train", 0, 5)["seconds"]
            record("rate", name, 2 * 4096**3 / seconds / 1e9)
            continue
        answer = worker.ask("train", 64, steps)
        record("train 64", name, 1000 * answer["seconds"] / steps)
        if warm_up:  # the peak memory before any batch of 512
            measured["peak 64"].add(name, answer["peak"] / 1e6)
    for name, worker in workers.items():
        if name.startswith("matrix") or "orderings" in name:
            continue
        number = max(2, steps // 8)
        record("infer 512", name, 1000 * worker.ask("infer", 512, number)["seconds"] / number)
        answer = worker.ask("train", 512, number)
        record("train 512", name, 1000 * answer["seconds"] / number)
        record("peak 512", name, answer["peak"] / 1e6)


def measure_epochs(workers: dict[str, Worker], measured: dict[str, Rounds]) -> None:
    for label, (name, method) in WHOLE_EPOCHS.items():
        if name in workers:
            measured["epoch"].add(label, workers[name].ask(method, 64, -(-EPOCH // 64))["seconds"])
    for overrides in TRAIN_PY_OVERRIDES:
        last, _ = run_train_py(*overrides, "trainer.max_epochs=2")  # the first epoch warms up
        name = " ".join(["python train.py", *overrides])
        measured["epoch"].add(name, EPOCH / float(last["train/samples_per_second"]))


def measure_fast_experiment(measured: dict[str, Rounds], seed: int) -> None:
    last, results = run_train_py("experiment=fast", f"seed={seed}")
    measured["fast"].add("seconds", int(last["epoch"]) * float(last["train/epoch_seconds"]))
    measured["fast"].add("accuracy", 100 * results["test/accuracy"])


def run_train_py(*overrides: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Runs train.py, and returns the metrics of the last epoch and the results."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        command = [sys.executable, "train.py", *overrides, f"hydra.run.dir={run}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        last = last_epoch(run)
        assert last
        return last, json.loads((run / RESULTS).read_text())


def measure_trainer(kind: str, measured: dict[str, Rounds]) -> None:
    command = [sys.executable, "-m", "quadrant_lstm.benchmark.trainer", PRECISION[kind]]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    answer = json.loads(output.splitlines()[-1])
    ratio = statistics.median(Rounds(answer).ratios("trainer", "bare"))
    measured["share above a bare loop"].add(kind, 100 * (1 - 1 / ratio))
    measured["growth"].add(kind, (answer["resident"][-1] - answer["resident"][1]) / 1e6)


def count_gflop() -> dict[str, float]:
    """Counts the GFLOP of a training step, forward and backward, of the network with shared tiles."""
    peer = TorchPeer(ours, bf16=False)
    with FlopCounterMode(display=False) as counter:
        peer.train(64, 1)
    return {"step 64": counter.get_total_flops() / 1e9}


def describe_machine() -> str:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        fields = {name.strip(): value.strip() for name, _, value in lines}
        if fields.keys() >= {"model name", "cpu family", "model"}:
            cpu = "{model name} (family {cpu family}, model {model})".format(**fields)
    cores, capability = len(os.sched_getaffinity(0)), torch.backends.cpu.get_cpu_capability()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cores} cores of {cpu} ({capability}){gpu}, torch {torch.__version__}, {date.today()}"


def write(folder: Path, measured: dict[str, Rounds], notes: list[str]) -> None:
    gflop, machine = count_gflop(), describe_machine()
    text = table(measured, notes, gflop)
    content: dict[str, Any] = {"machine": machine, "measured": measured, "gflop": gflop, "not measured": notes}
    (folder / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "benchmark.md").write_text(f"{machine}; `python -m quadrant_lstm.benchmark`\n\n{text}\n")
    picture(measured, machine).savefig(folder / "benchmark.png")
    print(f"\n{machine}\n\n{text}\n\n{folder}/benchmark.md, .json, .png")


if __name__ == "__main__":
    with handle_errors():
        main()

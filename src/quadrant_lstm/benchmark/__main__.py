"""This machine -> how long the question's network takes here: ours, plain PyTorch, and Keras; and how near the limit.

python -m pip install -e ".[bench]" && python -m quadrant_lstm.benchmark       in the project's root; an hour

Every peer is a process of its own; only one computes at a time, and in each round each has its turn, so that a noisy
machine disturbs all alike. The first round warms up and is left out. Writes benchmark.md, .json and .png into --out.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from quadrant_lstm.benchmark.peers import PEERS, Torch, ours
from quadrant_lstm.benchmark.report import EPOCH, WHOLE_EPOCHS, Rounds, picture, table
from quadrant_lstm.benchmark.worker import Failed, Worker
from quadrant_lstm.cli.command import command
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import RESULTS, last_epoch

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}
TRAINED = (  # by train.py, a whole epoch
    ("trainer.precision=32-true",),
    ("trainer.precision=bf16-mixed",),
    ("trainer.precision=bf16-mixed", "data.batch_size=512"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of steps, after one that warms up")
    parser.add_argument("--epochs", type=int, default=5, help="rounds of whole epochs; 0 for none")
    parser.add_argument("--steps", type=int, default=30, help="training steps of 64 images a round")
    parser.add_argument("--out", type=Path, default=Path("outputs", "benchmark"))
    options = parser.parse_args()
    for name, least in {"rounds": 1, "epochs": 0, "steps": 1}.items():
        if (value := getattr(options, name)) < least:
            default = parser.get_default(name)
            raise UserError(f"--{name}: {value} is less than {least}; leave it out for {default}, or write more.")
    if not Path("conf/train.yaml").is_file():
        raise UserError("benchmark: there is no conf/train.yaml here; run it in the project's root.")
    options.out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, Rounds] = {}
    workers, notes = start_workers()
    try:
        for number in range(options.rounds + 1):
            measure_round(workers, measured, options.steps, counts=number > 0)
            print(f"round {number}/{options.rounds}" if number else "warmed up", flush=True)
        for number in range(options.epochs):
            measure_epochs(workers, measured)
            measure_fast(measured, seed=number + 1)
            print(f"epoch {number + 1}/{options.epochs}", flush=True)
    finally:
        for worker in workers.values():
            worker.stop()
    for kind in PRECISION if options.epochs else ():
        for _ in range(options.epochs):
            measure_trainer(kind, measured)
        print(f"the trainer's share, {kind}", flush=True)
    for name in ("epoch", "fast", "growth", "share above a bare loop"):
        measured.setdefault(name, Rounds())
    if not options.epochs:
        notes.append("whole epochs, experiment=fast and the trainer's share: --epochs is 0")
    if not torch.cuda.is_available():
        notes.append("a GPU: torch finds none")
    write(options.out, measured, notes)


def start_workers() -> tuple[dict[str, Worker], list[str]]:
    workers, notes = {}, []
    for name in PEERS:
        try:
            workers[name] = Worker(name)
        except Failed as reason:
            notes.append(f"{name}: {reason}")
            print(f"not measured: {notes[-1]}")
    return workers, notes


def measure_round(workers: dict[str, Worker], measured: dict[str, Rounds], steps: int, counts: bool) -> None:
    def note(key: str, name: str, value: float) -> None:
        if counts:
            measured.setdefault(key, Rounds()).setdefault(name, []).append(value)

    for name, worker in workers.items():
        if name.startswith("matrix"):
            seconds = worker.ask("train", 0, 5)["seconds"]
            note("rate", name, 2 * 4096**3 / seconds / 1e9)
            continue
        answer = worker.ask("train", 64, steps)
        note("train 64", name, 1000 * answer["seconds"] / steps)
        if not counts:  # before any batch of 512
            measured.setdefault("peak 64", Rounds())[name] = [answer["peak"] / 1e6]
    for name, worker in workers.items():
        if name.startswith("matrix") or "orderings" in name:
            continue
        number = max(2, steps // 8)
        note("infer 512", name, 1000 * worker.ask("infer", 512, number)["seconds"] / number)
        answer = worker.ask("train", 512, number)
        note("train 512", name, 1000 * answer["seconds"] / number)
        note("peak 512", name, answer["peak"] / 1e6)


def measure_epochs(workers: dict[str, Worker], measured: dict[str, Rounds]) -> None:
    epochs = measured.setdefault("epoch", Rounds())
    for label, (name, do) in WHOLE_EPOCHS.items():
        if name in workers:
            epochs.setdefault(label, []).append(workers[name].ask(do, 64, -(-EPOCH // 64))["seconds"])
    for overrides in TRAINED:
        last, _ = trained(*overrides, "trainer.max_epochs=2")  # the first warms up
        name = " ".join(["python train.py", *overrides])
        epochs.setdefault(name, []).append(EPOCH / float(last["train/samples_per_second"]))


def measure_fast(measured: dict[str, Rounds], seed: int) -> None:
    last, results = trained("experiment=fast", f"seed={seed}")
    fast = measured.setdefault("fast", Rounds(seconds=[], accuracy=[]))
    fast["seconds"].append(int(last["epoch"]) * float(last["train/epoch_seconds"]))
    fast["accuracy"].append(100 * results["test/accuracy"])


def trained(*overrides: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The last epoch and the results of a run of train.py."""
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
    measured.setdefault("share above a bare loop", Rounds()).setdefault(kind, []).append(100 * (1 - 1 / ratio))
    resident = answer["resident"]
    measured.setdefault("growth", Rounds()).setdefault(kind, []).append((resident[-1] - resident[1]) / 1e6)


def flops() -> dict[str, float]:
    """GFLOP of a training step: what the network computes with shared tiles, forward and backward."""
    peer = Torch(ours, bf16=False)
    with FlopCounterMode(display=False) as counter:
        peer.train(64, 1)
    return {"step 64": counter.get_total_flops() / 1e9}


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        about = {name.strip(): value.strip() for name, _, value in lines}
        if about.keys() >= {"model name", "cpu family", "model"}:
            cpu = "{model name} (family {cpu family}, model {model})".format(**about)
    capability = torch.backends.cpu.get_cpu_capability()
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{len(os.sched_getaffinity(0))} cores of {cpu} ({capability}){card}, torch {torch.__version__}, {date.today()}"
    )


def write(folder: Path, measured: dict[str, Rounds], notes: list[str]) -> None:
    gflop = flops()
    text = table(measured, notes, gflop)
    content: dict[str, Any] = {"machine": machine(), "measured": measured, "gflop": gflop, "not measured": notes}
    (folder / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "benchmark.md").write_text(f"{machine()}; `python -m quadrant_lstm.benchmark`\n\n{text}\n")
    picture(measured, machine()).savefig(folder / "benchmark.png")
    print(f"\n{machine()}\n\n{text}\n\n{folder}/benchmark.md, .json, .png")


if __name__ == "__main__":
    with command():
        main()

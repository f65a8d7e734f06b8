"""Measures the network of the question on this machine: in this project, in plain PyTorch, and in Keras.

python -m pip install -e ".[bench]" && python -m quadrant_lstm.benchmark       in the project's root; an hour

Each peer runs in a process of its own. Only one computes at a time, and each has its turn in every round, so that noise
on the machine affects all alike. A first round warms up and does not count. Writes benchmark.md, .json and .png.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from quadrant_lstm.benchmark import trainer
from quadrant_lstm.benchmark.command import machine, new_parser
from quadrant_lstm.benchmark.peers import PEERS
from quadrant_lstm.benchmark.report import EPOCH, KERAS, WHOLE_EPOCHS, Rounds, picture, table
from quadrant_lstm.benchmark.worker import Worker
from quadrant_lstm.cli.command import check_project_root, handle_errors
from quadrant_lstm.config.check import check_value
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.kinds import Count, Natural
from quadrant_lstm.run.build import cpu_multiplies_bf16
from quadrant_lstm.run_folder import RESULTS

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}
TRAIN_PY_OVERRIDES = (  # of the runs of train.py whose epochs are measured
    ("trainer.precision=32-true",),
    ("trainer.precision=bf16-mixed",),
    ("trainer.precision=bf16-mixed", "data.batch_size=512"),
)


def main() -> None:
    parser = new_parser(__doc__, rounds=5)
    parser.add_argument("--epochs", type=int, default=5, help="rounds of whole epochs; 0 for none")
    parser.add_argument("--steps", type=int, default=30, help="training steps of 64 images per round")
    options = parser.parse_args()
    for name, allowed in {"rounds": Count, "epochs": Natural, "steps": Count}.items():
        check_value(f"--{name}", getattr(options, name), allowed)
    check_project_root("benchmark")
    options.out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, Rounds] = defaultdict(Rounds)
    workers, notes = start_workers(measured)
    try:
        measure_round(workers, defaultdict(Rounds), options.steps)  # warms up
        for number in range(options.rounds):
            measure_round(workers, measured, options.steps)
            print(f"round {number + 1}/{options.rounds}", flush=True)
        for number in range(options.epochs):
            measure_epochs(workers, measured)
            print(f"epoch {number + 1}/{options.epochs}", flush=True)
    finally:
        for worker in workers.values():
            worker.stop()
    for kind in filter(is_measured, PRECISION):
        for number in range(options.epochs):
            measure_trainer(kind, measured)
            print(f"trainer's overhead, {kind}, {number + 1}/{options.epochs}", flush=True)
    if not options.epochs:
        notes.append("whole epochs and the trainer's overhead: --epochs is 0")
    if not torch.cuda.is_available():
        notes.append("a GPU: torch finds none")
    if not is_measured("bf16"):
        notes.append("bf16: torch finds no instructions for it")
    write(options.out, measured, notes)


def start_workers(measured: dict[str, Rounds]) -> tuple[dict[str, Worker], list[str]]:
    """Returns the peers that can be built, by name, and the reasons why others cannot. Measures their peak memory."""
    workers, notes = {}, []
    for name in filter(is_measured, PEERS):
        try:
            with needs_extra(name, "bench"):
                worker = Worker(name)
            measured["peak 64"].add(name, worker.ask("train", 64, 10).peak / 1e6)
            workers[name] = worker
            if name == KERAS and torch.cuda.is_available() and not worker.tensorflow_finds_gpu():
                notes.append(f"{name} on the GPU: it finds none, so it computes on the processor")
        except UserError as error:
            notes.append(str(error))
        except Exception as error:  # a compiler raises errors of many types
            notes.append(f"{name}: {type(error).__name__}: {error}".partition("\n")[0])
    return workers, notes


def is_measured(name: str) -> bool:
    """Leaves out bf16 on a processor without instructions for it, where it takes several times as long as fp32."""
    return "bf16" not in name or torch.cuda.is_available() or cpu_multiplies_bf16()


def measure_round(workers: dict[str, Worker], measured: dict[str, Rounds], steps: int) -> None:
    for name, worker in workers.items():
        measured["train 64"].add(name, 1000 * worker.ask("train", 64, steps).seconds / steps)
    number = max(2, steps // 8)
    for name, worker in workers.items():
        if "orderings" not in name:
            measured["infer 512"].add(name, 1000 * worker.ask("infer", 512, number).seconds / number)
            seconds, peak = worker.ask("train", 512, number)
            measured["train 512"].add(name, 1000 * seconds / number)
            measured["peak 512"].add(name, peak / 1e6)


def measure_epochs(workers: dict[str, Worker], measured: dict[str, Rounds]) -> None:
    for label, (name, method) in WHOLE_EPOCHS.items():
        if name in workers:
            measured["epoch"].add(label, workers[name].ask(method, 64, -(-EPOCH // 64)).seconds)
    for overrides in TRAIN_PY_OVERRIDES:
        if not is_measured(overrides[0]):
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "run")  # of two epochs, the first of which warms up
            command = [sys.executable, "train.py", *overrides, "trainer.max_epochs=2", f"hydra.run.dir={run}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            speed = json.loads((run / RESULTS).read_text())["samples_per_second"]
        measured["epoch"].add(" ".join(["python train.py", *overrides]), EPOCH / speed)


def measure_trainer(kind: str, measured: dict[str, Rounds]) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        seconds = process.submit(trainer.measure, PRECISION[kind]).result()
    ratio = statistics.median(Rounds(seconds).ratios("trainer", "bare"))
    measured["share above a bare loop"].add(kind, 100 * (1 - 1 / ratio))


def write(folder: Path, measured: dict[str, Rounds], notes: list[str]) -> None:
    text, here = table(measured, notes), machine(torch.cuda.get_device_name() if torch.cuda.is_available() else "")
    content = {"machine": here, "measured": measured, "not measured": notes}
    (folder / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "benchmark.md").write_text(f"{here}; `python -m quadrant_lstm.benchmark`\n\n{text}\n")
    picture(measured, here).savefig(folder / "benchmark.png")
    print(f"\n{here}\n\n{text}\n\n{folder}/benchmark.md, .json, .png")


if __name__ == "__main__":
    with handle_errors():
        main()

"""This machine -> what an epoch through train.py costs above the same steps in a bare PyTorch loop.

python -m quadrant_lstm.benchmark      in the project's root; about five minutes on two CPU cores

Each round measures both, one after the other, each in a process of its own: an epoch to warm up, then the epoch that
counts. The bare loop takes the same network, optimizer, batch size and number of steps, gathers its batches by index
and logs nothing.
"""

import argparse
import csv
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH = 64


def bare_loop(steps: int) -> float:
    """Milliseconds a step."""
    import torch
    from torch.nn.functional import cross_entropy

    from quadrant_lstm import CNNLSTM, sequences
    from quadrant_lstm.data.images import load_images

    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    data = load_images("mnist", None)
    images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
    network = CNNLSTM((1, 56, 14), 10, [32, 32], 3, 2, 0.25, 5, 50)
    optimizer = torch.optim.Adam(network.parameters())
    elapsed = 0.0
    for _ in range(2):
        batches = torch.randperm(len(images))[: steps * BATCH].split(BATCH)
        start = time.perf_counter()
        for indices in batches:
            frames = sequences(images[indices]).float() / 255
            optimizer.zero_grad()
            cross_entropy(network(frames), labels[indices]).backward()
            optimizer.step()
        elapsed = time.perf_counter() - start
    return 1000 * elapsed / steps


def through_train_py(steps: int) -> float:
    """Milliseconds a step."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                sys.executable, "train.py", f"hydra.run.dir={folder}", f"trainer.limit_train_batches={steps}",
                "trainer.max_epochs=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        with Path(folder, "metrics.csv").open(newline="") as file:
            samples_per_second = float(list(csv.DictReader(file))[-1]["train/samples_per_second"])
    return 1000 * BATCH / samples_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="training steps an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(bare_loop(options.steps))
        return
    if not Path("train.py").is_file():
        sys.exit("benchmark: there is no train.py here; run it in the project's root.")
    bare, full = [], []
    for number in range(1, options.rounds + 1):
        command = [sys.executable, "-m", "quadrant_lstm.benchmark", "--bare", "--steps", str(options.steps)]
        bare.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        full.append(through_train_py(options.steps))
        print(f"round {number}/{options.rounds}: bare loop {bare[-1]:.1f} ms, train.py {full[-1]:.1f} ms", flush=True)
    print("\n| training step, batch 64 | median ms | from | to |\n|---|---|---|---|")
    for name, values in (("bare PyTorch loop", bare), ("train.py", full)):
        print(f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")
    ratio = statistics.median(full) / statistics.median(bare)
    print(f"\ntrain.py costs {100 * (ratio - 1):+.1f} % (median against median)")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"peak memory of a process: {peak:,.0f} MB")


if __name__ == "__main__":
    main()

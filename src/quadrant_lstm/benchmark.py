"""This machine -> what shared tiles save, and what an epoch through train.py costs above a bare PyTorch loop.

python -m quadrant_lstm.benchmark      in the project's root; about five minutes on two CPU cores

All in one process and in turns, so that a noisy machine disturbs all alike: the trainer that train.py builds, with
all its callbacks and loggers, and a loop with the same network, optimizer, batches and number of steps that gathers
its batches by index and records nothing. Of two epochs each the second counts; the ratio is that of a round.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch.nn.functional import cross_entropy

from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.run.build import build, build_classifier, build_data, build_network, build_trainer
from quadrant_lstm.run.memory import keep_freed_memory
from quadrant_lstm.run.quiet import quiet_lightning

FULL = "bare PyTorch loop, every frame in full"
SHARED = "bare PyTorch loop, shared tiles"
TRAINED = "train.py, shared tiles"


def config(folder: str, steps: int, *overrides: str) -> DictConfig:
    always = [
        f"trainer.limit_train_batches={steps}",
        "trainer.limit_val_batches=1",
        "trainer.max_epochs=2",
        f"trainer.logger.tensorboard.save_dir={folder}",
    ]
    with initialize_config_dir(str(Path("conf").absolute()), version_base="1.3"):
        return compose("train", [*always, *overrides])


def bare_epoch(cfg: DictConfig, steps: int) -> float:
    """Milliseconds a step."""
    data = build_data(cfg)
    images, labels = data.train.tensors
    network = build_network(cfg, data.frame_shape, data.num_classes)
    optimizer = build("optimizer", cfg.optimizer)(network.parameters())
    size = cfg.data.batch_size
    for _ in range(2):
        batches = data.train_indices[torch.randperm(len(data.train_indices))][: steps * size].split(size)
        start = time.perf_counter()
        for indices in batches:
            frames = sequences(images[indices], data.orderings).float() / 255
            optimizer.zero_grad()
            cross_entropy(network(frames), labels[indices]).backward()
            optimizer.step()
    return 1000 * (time.perf_counter() - start) / steps


def trained_epoch(cfg: DictConfig, folder: str) -> float:
    """Milliseconds a step."""
    data = build_data(cfg)
    trainer = build_trainer(cfg, Path(folder))
    trainer.fit(build_classifier(cfg, data.frame_shape, data.num_classes), datamodule=data)
    return 1000 * cfg.data.batch_size / trainer.callback_metrics["train/samples_per_second"].item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="training steps an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not Path("conf/train.yaml").is_file():
        sys.exit("benchmark: there is no conf/train.yaml here; run it in the project's root.")
    quiet_lightning()
    keep_freed_memory()
    torch.set_flush_denormal(True)
    times: dict[str, list[float]] = {FULL: [], SHARED: [], TRAINED: []}
    for number in range(options.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            cfg = config(folder, options.steps)
            times[FULL].append(
                bare_epoch(config(folder, options.steps, "model.shared_tiles=false"), options.steps // 5)
            )
            times[SHARED].append(bare_epoch(cfg, options.steps))
            times[TRAINED].append(trained_epoch(cfg, folder))
        name = f"round {number}/{options.rounds}" if number else "warm-up"
        print(f"{name}:", ", ".join(f"{what} {values[-1]:.1f} ms" for what, values in times.items()), flush=True)
    times = {what: values[1:] for what, values in times.items()}
    print(f"\n| training step, batch {cfg.data.batch_size} | median ms | from | to |\n|---|---|---|---|")
    for what, values in times.items():
        print(f"| {what} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")
    print(f"\nshared tiles: {ratio(times[FULL], times[SHARED]):.2f} times faster (median over the rounds)")
    print(f"train.py costs {100 * (ratio(times[TRAINED], times[SHARED]) - 1):+.1f} % (median over the rounds)")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))


if __name__ == "__main__":
    main()

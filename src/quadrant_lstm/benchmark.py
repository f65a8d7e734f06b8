"""This machine -> what an epoch through train.py costs above the same steps in a bare PyTorch loop.

python -m quadrant_lstm.benchmark      in the project's root; about five minutes on two CPU cores

Both in one process and in turns, so that a noisy machine disturbs both alike: the trainer that train.py builds, with
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
from quadrant_lstm.run.quiet import quiet_lightning


def config(folder: str, steps: int) -> DictConfig:
    overrides = [
        f"trainer.limit_train_batches={steps}",
        "trainer.limit_val_batches=1",
        "trainer.max_epochs=2",
        f"trainer.logger.tensorboard.save_dir={folder}",
    ]
    with initialize_config_dir(str(Path("conf").absolute()), version_base="1.3"):
        return compose("train", overrides)


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
    parser.add_argument("--steps", type=int, default=60, help="training steps an epoch")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if not Path("conf/train.yaml").is_file():
        sys.exit("benchmark: there is no conf/train.yaml here; run it in the project's root.")
    quiet_lightning()
    torch.set_flush_denormal(True)
    bare, trained = [], []
    for number in range(options.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            cfg = config(folder, options.steps)
            bare.append(bare_epoch(cfg, options.steps))
            trained.append(trained_epoch(cfg, folder))
        name = f"round {number}/{options.rounds}" if number else "warm-up"
        print(f"{name}: bare loop {bare[-1]:.1f} ms, train.py {trained[-1]:.1f} ms", flush=True)
    del bare[0], trained[0]
    print(f"\n| training step, batch {cfg.data.batch_size} | median ms | from | to |\n|---|---|---|---|")
    for name, values in (("bare PyTorch loop", bare), ("train.py", trained)):
        print(f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")
    ratio = statistics.median(full / alone for full, alone in zip(trained, bare, strict=True))
    print(f"\ntrain.py costs {100 * (ratio - 1):+.1f} % (median over the rounds)")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()

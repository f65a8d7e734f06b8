"""Measures how fast clips are read and made, beside decoding alone and the training step, and the memory of a training.

python -m pip install -e ".[video]" && python -m quadrant_lstm.benchmark.clips       five minutes

The ways that are compared take turns in every round; a first round warms up and does not count. Writes clips.md.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from quadrant_lstm.benchmark.clip_memory import memory_of_training
from quadrant_lstm.benchmark.clip_reading import SIZE, per_second, reading_rows
from quadrant_lstm.benchmark.command import new_parser, write_page
from quadrant_lstm.benchmark.report import Rounds, median_and_range, row
from quadrant_lstm.cli.command import check_project_root, compose_config, handle_errors
from quadrant_lstm.config.check import check_value
from quadrant_lstm.errors import needs_extra
from quadrant_lstm.kinds import AtLeastTwo
from quadrant_lstm.processes.launch import prepare_for_training
from quadrant_lstm.run.build import build_data, build_network, resolve_precision


def main() -> None:
    options = new_parser(__doc__, rounds=7).parse_args()
    check_value("--rounds", options.rounds, AtLeastTwo)
    check_project_root("benchmark.clips")
    with needs_extra("benchmark", "video"):
        import av  # noqa: F401
    prepare_for_training()
    write_page(options.out, "clips", tables(options.rounds))


def tables(rounds: int) -> Iterator[str]:
    yield row(
        f"frames of {SIZE} x {SIZE} per second, median (minimum to maximum)", "decoding alone", "this project", "ratio"
    )
    yield "|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder  # where notes of clips are kept
        yield from reading_rows(Path(folder), rounds)
        yield ""
        yield row("clips of `experiment=motion` per second, median (minimum to maximum)", "")
        yield "|---|---|"
        yield from making_rows(rounds)
        yield ""
        yield row("memory while training on 10 GB of frames", "GB")
        yield "|---|---|"
        for cache_gb in (0.0, 1.0):
            yield row(
                f"`data.cache_gb={cache_gb:.0f}`", f"{memory_of_training(Path(folder, 'large'), cache_gb) / 1e9:.2f}"
            )


def making_rows(rounds: int) -> Iterator[str]:
    cfg = compose_config(["experiment=motion"])
    data = build_data(cfg)
    network = build_network(cfg, data.spec).train()
    samples = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer(samples, 0)
    precision = resolve_precision(cfg.trainer.precision, "cpu")
    trained = f"read by the training step, {precision}"

    def step() -> int:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            cross_entropy(network(batch.frames), batch.labels).backward()
        return len(batch.labels)

    def make() -> int:
        return len(data.on_after_batch_transfer(samples, 0).labels)

    measured = Rounds()
    for number in range(1 + 3 * rounds):  # a round is short
        for name, way in (("made", make), (trained, step)):
            speed = per_second(way)
            if number:
                measured.add(name, speed)
    for name, speeds in measured.items():
        yield row(name, median_and_range(speeds, 0))
    yield row("ratio", median_and_range(measured.ratios("made", trained)))


if __name__ == "__main__":
    with handle_errors():
        main()

"""What the benchmark's commands share: their options, and the line that names the machine."""

import argparse
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import torch

from quadrant_lstm.run.provenance import processor


def new_parser(documentation: str | None, rounds: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds, after one that warms up")
    parser.add_argument("--out", type=Path, default=Path("outputs", "benchmark"), help="folder of the results")
    return parser


def machine(gpu: str = "") -> str:
    """Returns a line that names the processor and, if given, the GPU that was measured."""
    where = ", ".join(filter(None, (processor(), gpu)))
    return f"{torch.get_num_threads()} threads on {where}, torch {torch.__version__}, {date.today()}"


def write_page(folder: Path, name: str, lines: Iterable[str]) -> None:
    """Prints the lines, each once it is measured, on the CPU, and writes them to NAME.md, below machine and command."""
    written = [f"{machine()}; `python -m quadrant_lstm.benchmark.{name}`", ""]
    print(written[0], end="\n\n", flush=True)
    for line in lines:
        print(line, flush=True)
        written.append(line)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n".join(written) + "\n")
    print(f"\n{folder}/{name}.md")

"""Measures this project on this machine, beside other ways to compute the same. Run it in the project's root.

python -m benchmarks             the question's network, beside Keras and plain PyTorch; an hour (extra: bench)
python -m benchmarks layers      TimeDistributed, ConvLSTM and shared tiles; four minutes (extra: bench)
python -m benchmarks clips       how fast clips are read; five minutes (extra: video)
python -m benchmarks exported    the exported programs of the question's network; a minute (extra: export)
python -m benchmarks processes   one and two processes, by themselves and under torchrun; ten minutes

What is compared takes turns in every round, so that noise on the machine affects all alike. A first round warms up and
does not count. A cell holds the median and the range, and the ratio to the first column: its median and the range of
the middle half. Writes NAME.md.
"""

import argparse
import multiprocessing
from pathlib import Path

from benchmarks import clips, exported, layers, measure, question
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.config.check import check_value
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import Count, Natural
from quadrant_lstm.processes.launch import prepare_for_training

COMPARISONS = {
    "question": question.tables, "layers": layers.tables, "clips": clips.tables, "exported": exported.tables,
    "processes": question.processes_tables,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser("benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", nargs="?", default="question", choices=COMPARISONS)
    parser.add_argument("--out", type=Path, default=Path("outputs", "benchmark"), help="folder of the results")
    parser.add_argument("--rounds", type=int, help="rounds, after one that warms up")
    parser.add_argument("--steps", type=int, help="question: training steps of 64 images per round")
    parser.add_argument("--epochs", type=int, help="question: rounds of whole epochs; 0 for none")
    options = vars(parser.parse_args())
    name, out = options.pop("name"), options.pop("out")
    chosen = {key: value for key, value in options.items() if value is not None}
    for key, value in chosen.items():
        check_value(f"--{key}", value, Natural if key == "epochs" else Count)
        if key != "rounds" and name != "question":
            raise UserError(f"--{key}: {name} has no such option; leave it out.")
    out.mkdir(parents=True, exist_ok=True)
    prepare_for_training()  # sets the number of threads
    try:
        measure.write_page(out / f"{name}.md", COMPARISONS[name](out, **chosen))
    except BaseException:
        for child in multiprocessing.active_children():  # an interrupt does not wait for what they compute
            child.kill()
        raise


if __name__ == "__main__":
    with handle_errors():
        main()

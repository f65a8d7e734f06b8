"""Remakes the pictures and tables of README.md and docs/.

    python -m docs.figures tables [NAME=SWEEP ...]    the tables between comments in docs/*.md and the pictures of them,
                                                 after the jobs of a sweep were added to docs/measured/NAME.csv
    python -m docs.figures epochs SWEEP          epochs.png, of a sweep over seeds
    python -m docs.figures mistakes RUN ...      mistakes.png; several runs are an ensemble
    python -m docs.figures copies RUN ...        prints what a mean over augmented copies of images changes
    python -m docs.figures clip RUN NUMBER       clip.png, of a test clip
    python -m docs.figures join RUN NUMBER NUMBER    join.png, of two test clips
    python -m docs.figures orderings             orderings.png and named_orderings.png
    python -m docs.figures draw                  draw.html with today's templates, draw.png and draw.gif
    python -m docs.figures reports RUN SWEEP     report.png, terminal.png and sweep.png
    python -m docs.figures tensorboard RUNS TAB ...    tensorboard_TAB.png

The last three need `python -m pip install -e ".[dev]"` and Debian's chromium-driver. The pictures are of these runs:

    clip           experiment=clips data.root=FOLDER, with the script of clips.md; clip 54
    join           data=moving_digits data.num_frames=4 data.canvas=[28,28] model.lstm_units=16 trainer.max_epochs=1;
                   clips 667 and 2981
    reports        a run of `python train.py`; a sweep of experiment=fast model/recurrent=lstm,gru,mean seed=1,2,3
    tensorboard    time_series: the same run; hparams: the same sweep; projector: its first job
"""

import argparse
from pathlib import Path

from docs.figures import measured, pages, pictures
from quadrant_lstm.files import write_atomically
from quadrant_lstm.run_folder import BEST, find_run
from quadrant_lstm.sweep.sweep_folder import find_sweep

DOCS = Path(__file__).parents[1]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tables").add_argument("sweeps", nargs="*", metavar="NAME=SWEEP", type=assignment)
    commands.add_parser("epochs").add_argument("sweep", metavar="SWEEP")
    (mistakes := commands.add_parser("mistakes")).add_argument("runs", nargs="+", metavar="RUN")
    mistakes.add_argument("--out", type=Path, default=DOCS / "mistakes.png")
    commands.add_parser("copies").add_argument("runs", nargs="+", metavar="RUN")
    (clip := commands.add_parser("clip")).add_argument("run", metavar="RUN")
    clip.add_argument("number", type=int, metavar="NUMBER")
    (join := commands.add_parser("join")).add_argument("run", metavar="RUN")
    join.add_argument("numbers", nargs=2, type=int, metavar="NUMBER")
    commands.add_parser("orderings")
    commands.add_parser("draw")
    (reports := commands.add_parser("reports")).add_argument("run", metavar="RUN")
    reports.add_argument("sweep", metavar="SWEEP")
    (tensorboard := commands.add_parser("tensorboard")).add_argument("runs", type=Path, metavar="RUNS")
    tensorboard.add_argument("tabs", nargs="+", choices=pages.CARDS, metavar="TAB")
    return parser


def assignment(word: str) -> list[str]:
    if "=" not in word:
        raise argparse.ArgumentTypeError(f"{word} names no table; write NAME=SWEEP")
    return word.split("=", 1)


def main(given: argparse.Namespace) -> None:
    def write(name: str, picture: bytes) -> None:
        write_atomically(DOCS / name, picture)

    match given.command:
        case "tables":
            measured.tables((name, find_sweep(sweep)) for name, sweep in given.sweeps)
        case "epochs":
            write("epochs.png", pictures.draw_epochs(find_sweep(given.sweep)))
        case "mistakes":
            write_atomically(given.out, pictures.mistakes([find_run(run, BEST) for run in given.runs]))
        case "copies":
            pictures.print_copies([find_run(run, BEST) for run in given.runs])
        case "clip":
            write("clip.png", pictures.clip(find_run(given.run, BEST), given.number))
        case "join":
            write("join.png", pictures.draw_join(find_run(given.run, BEST), given.numbers))
        case "orderings":
            write("orderings.png", pictures.orderings())
            write("named_orderings.png", pictures.draw_scans())
        case "draw":
            pages.draw()
        case "reports":
            pages.reports(find_run(given.run), find_sweep(given.sweep).folder)
        case "tensorboard":
            pages.tensorboard(given.runs, given.tabs)

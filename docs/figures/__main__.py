"""Remakes the pictures and tables of README.md and docs/.

    python -m docs.figures tables [NAME=SWEEP ...]    the tables between comments in docs/*.md and the pictures of them,
                                                 after the jobs of a sweep were added to docs/measured/NAME.csv
    python -m docs.figures epochs SWEEP          epochs.png, of a sweep over seeds
    python -m docs.figures mistakes FILE RUN ... a picture such as mistakes.png; several runs are an ensemble
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

import sys
from collections.abc import Sequence
from pathlib import Path

from docs.figures import measured, pages, pictures
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.files import write_atomically
from quadrant_lstm.run_folder import BEST, find_run
from quadrant_lstm.sweep.sweep_folder import find_sweep

DOCS = Path(__file__).parents[1]


def main(words: Sequence[str]) -> None:
    def write(name: str, picture: bytes) -> None:
        write_atomically(DOCS / name, picture)

    match words:
        case ["tables", *sweeps]:
            pairs = (word.partition("=") for word in sweeps)
            measured.tables((name, find_sweep(sweep)) for name, _, sweep in pairs)
        case ["epochs", sweep]:
            write("epochs.png", pictures.draw_epochs(find_sweep(sweep)))
        case ["mistakes", file, *runs]:
            write_atomically(Path(file), pictures.mistakes([find_run(run, BEST) for run in runs]))
        case ["copies", *runs]:
            pictures.print_copies([find_run(run, BEST) for run in runs])
        case ["clip", run, number]:
            write("clip.png", pictures.clip(find_run(run, BEST), int(number)))
        case ["join", run, *numbers]:
            write("join.png", pictures.draw_join(find_run(run, BEST), list(map(int, numbers))))
        case ["orderings"]:
            write("orderings.png", pictures.orderings())
            write("named_orderings.png", pictures.draw_scans())
        case ["draw"]:
            pages.draw()
        case ["reports", run, sweep]:
            pages.reports(find_run(run), find_sweep(sweep).folder)
        case ["tensorboard", runs, *tabs]:
            pages.tensorboard(Path(runs), tabs)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    with handle_errors():
        main(sys.argv[1:])

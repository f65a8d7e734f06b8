"""Takes a command of docs/figures/__init__.py, and writes its pictures or tables to docs/."""

from docs.figures import main, parser
from quadrant_lstm.cli.command import handle_errors

if __name__ == "__main__":
    options = parser().parse_args()
    with handle_errors():
        main(options)

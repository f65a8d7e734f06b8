"""Computes the test metrics of a run's best checkpoint. See `python evaluate.py --help`."""

import sys

from quadrant_lstm.signals import exit_at_signals

exit_at_signals()  # also while the modules below are imported

import hydra
from omegaconf import DictConfig

from quadrant_lstm.cli.arguments import reader_arguments
from quadrant_lstm.cli.command import handle_errors, handle_job_errors
from quadrant_lstm.compat import OF_MAIN
from quadrant_lstm.config.check import find_trained_run
from quadrant_lstm.kinds import Accelerator, Places
from quadrant_lstm.signals import importing


@hydra.main(**OF_MAIN, config_path="conf_readers", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    with handle_job_errors():
        folder = find_trained_run(cfg, {"accelerator": Accelerator, "data": Places})
        with importing():
            from quadrant_lstm.run.load import evaluate  # imports torch

        evaluate(folder, cfg.accelerator, cfg.trust, cfg.data)


if __name__ == "__main__":
    with handle_errors():
        sys.argv[1:] = reader_arguments(sys.argv[1:])
        main()

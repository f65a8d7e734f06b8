"""Trains a network, tests its best epoch, and writes a run folder in outputs/. See `python train.py --help`."""

import sys

from quadrant_lstm.signals import exit_at_signals

exit_at_signals()  # also while the modules below are imported

import hydra
from omegaconf import DictConfig

from quadrant_lstm.cli.arguments import hydra_arguments, shared_arguments
from quadrant_lstm.cli.command import handle_errors, handle_job_errors, resumable
from quadrant_lstm.compat import OF_MAIN
from quadrant_lstm.config.check import check_config
from quadrant_lstm.processes.torchrun import Meeting
from quadrant_lstm.signals import importing


def main(meeting: Meeting | None) -> None:
    """Lets Hydra compose the config. `meeting` holds the processes of torchrun."""

    @hydra.main(**OF_MAIN, config_path="conf", config_name="train")
    def run(cfg: DictConfig) -> None:
        with handle_job_errors(), resumable():
            check_config(cfg)  # for jobs and resumed runs, which have no BeforeRun
            with importing():
                from quadrant_lstm.run.train import train  # imports torch

            train(cfg, meeting)

    run()


if __name__ == "__main__":
    with handle_errors() as meeting:
        sys.argv[1:] = shared_arguments(sys.argv[1:], meeting) if meeting else hydra_arguments(sys.argv[1:])
        main(meeting)

"""Exports a run's best checkpoint to a file for other programs or for people. See `python export.py --help`."""

import sys
from typing import Literal

from quadrant_lstm.signals import exit_at_signals

exit_at_signals()  # also while the modules below are imported

import hydra
from omegaconf import DictConfig

from quadrant_lstm.cli.arguments import reader_arguments
from quadrant_lstm.cli.command import handle_errors, handle_job_errors
from quadrant_lstm.compat import OF_MAIN
from quadrant_lstm.config.check import find_trained_run
from quadrant_lstm.files import check_output
from quadrant_lstm.run_folder import EXPORTED
from quadrant_lstm.signals import importing


@hydra.main(**OF_MAIN, config_path="conf_readers", config_name="export")
def main(cfg: DictConfig) -> None:
    with handle_job_errors():
        kinds = {
            "format": Literal["onnx", "torch", "safetensors", "keras", "html"],
            "weights": Literal["float32", "float16"],
            "output": str | None,
        }
        folder = find_trained_run(cfg, kinds)
        check_output(cfg.output, [EXPORTED[cfg.format].suffix])
        with importing():
            from quadrant_lstm.run.export import export  # imports torch

        export(folder, cfg.format, cfg.trust, cfg.weights, cfg.output)


if __name__ == "__main__":
    with handle_errors():
        sys.argv[1:] = reader_arguments(sys.argv[1:])
        main()

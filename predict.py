"""Classifies files of images or clips with a run's best checkpoint. See `python predict.py --help`."""

import sys

from quadrant_lstm.signals import exit_at_signals

exit_at_signals()  # also while the modules below are imported

import hydra
from omegaconf import DictConfig

from quadrant_lstm.cli.arguments import reader_arguments
from quadrant_lstm.cli.command import handle_errors, handle_job_errors
from quadrant_lstm.compat import OF_MAIN
from quadrant_lstm.config.check import check_reader_keys, find_trained_run
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import check_output
from quadrant_lstm.kinds import Places, Seconds
from quadrant_lstm.signals import importing


@hydra.main(**OF_MAIN, config_path="conf_readers", config_name="predict")
def main(cfg: DictConfig) -> None:
    with handle_job_errors():
        kinds = {"model": str | None, "images": str | None, "invert": bool | None, "output": str | None}
        kinds |= {"window": Seconds | None, "data": Places}  # type: ignore[dict-item]
        folder = None
        if cfg.model is None:
            folder = find_trained_run(cfg, kinds)
        else:
            check_reader_keys(cfg, kinds)
            if cfg.run is not None or cfg.images == "test":
                rule = "a file reads neither a run nor its test data"
                raise UserError(f"model: {rule}; leave out run= and images=test, or model=.")
        if cfg.images is None:
            others = "or a quoted glob" if cfg.model else "a quoted glob, or images=test"
            raise UserError(f"images: is missing; add images=FILE, a folder, {others}.")
        if cfg.images == "test" and cfg.invert is not None:
            raise UserError("invert: is for files, but the test samples are used as they are; leave it out.")
        if cfg.images != "test" and (unused := [key for key, place in cfg.data.items() if place]):
            raise UserError(f"data.{unused[0]}: is for images=test; leave it out.")
        if cfg.window and (cfg.images == "test" or cfg.invert is not None):
            rule = "neither the test samples nor images with invert="
            raise UserError(f"window: {cfg.window} cuts videos, {rule}; leave it out.")
        window = float(cfg.window.removesuffix("s")) if cfg.window else 0.0
        check_output(cfg.output, (".csv", ".jsonl"))
        with importing():
            from quadrant_lstm.run.predict import predict, predict_files  # imports torch
            from quadrant_lstm.run.predictor import predictor_of_onnx

        if folder:
            predict(folder, cfg.images, cfg.invert, cfg.output, cfg.trust, window, cfg.data)
        else:
            predictor = predictor_of_onnx(cfg.model)
            predict_files(predictor, predictor.find(cfg.images), cfg.invert, cfg.output, window)


if __name__ == "__main__":
    with handle_errors():
        sys.argv[1:] = reader_arguments(sys.argv[1:])
        main()

"""A run and pictures -> what they show. `python predict.py --help` tells how."""

import hydra
from omegaconf import DictConfig

from quadrant_lstm.cli.command import command, job
from quadrant_lstm.config.check import check_keys, trained_run
from quadrant_lstm.config.interpolations import resolved
from quadrant_lstm.data.pictures import find_pictures


@hydra.main(version_base="1.3", config_path="conf", config_name="predict")
def main(cfg: DictConfig) -> None:
    with job():
        check_keys(
            resolved(cfg, trusted=True),
            {"run": str | None, "images": str | None, "invert": bool | None, "output": str | None},
        )
        folder, files = trained_run(cfg.run), find_pictures(cfg.images)
        from quadrant_lstm.run.predict import predict  # imports torch

        predict(folder, files, cfg.invert, cfg.output)


if __name__ == "__main__":
    with command():
        main()

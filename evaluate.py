"""A run -> its test metrics, once more. `python evaluate.py --help` tells how."""

import hydra
from omegaconf import DictConfig

from quadrant_lstm.config.check import check_keys
from quadrant_lstm.config.command import command, job
from quadrant_lstm.config.values import Accelerator
from quadrant_lstm.run.folder import BEST, find_run


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    with job():
        check_keys(cfg, {"run": str | None, "accelerator": Accelerator})
        folder = find_run(cfg.run, BEST)
        from quadrant_lstm.run.evaluate import evaluate  # imports torch

        evaluate(folder, cfg.accelerator)


if __name__ == "__main__":
    with command():
        main()

"""A run -> its test metrics, once more. `python evaluate.py --help` tells how."""

import hydra
from omegaconf import DictConfig

from quadrant_lstm.cli.command import command, job
from quadrant_lstm.config.check import check_keys, trained_run
from quadrant_lstm.config.interpolations import resolved
from quadrant_lstm.kinds import Accelerator


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    with job():
        check_keys(resolved(cfg, trusted=True), {"run": str | None, "accelerator": Accelerator})
        folder = trained_run(cfg.run)
        from quadrant_lstm.run.evaluate import evaluate  # imports torch

        evaluate(folder, cfg.accelerator)


if __name__ == "__main__":
    with command():
        main()

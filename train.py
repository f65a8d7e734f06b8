"""Overrides -> a trained network, tested, in outputs/<date>/<time>. `python train.py --help` tells how."""

import sys

import hydra
from omegaconf import DictConfig

from quadrant_lstm.cli.arguments import go_on
from quadrant_lstm.cli.command import command, job
from quadrant_lstm.config.check import check


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    with job():
        check(cfg)
        from quadrant_lstm.config.signatures import check_signatures  # imports torch
        from quadrant_lstm.run.train import train

        check_signatures(cfg)
        return train(cfg)


if __name__ == "__main__":
    with command():
        sys.argv[1:] = go_on(sys.argv[1:])
        main()

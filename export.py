"""A run -> a file for other programs. `python export.py --help` tells how."""

from typing import Literal

import hydra
from omegaconf import DictConfig

from quadrant_lstm.config.check import check_keys
from quadrant_lstm.config.command import command, job
from quadrant_lstm.run.folder import BEST, find_run


@hydra.main(version_base="1.3", config_path="conf", config_name="export")
def main(cfg: DictConfig) -> None:
    with job():
        check_keys(cfg, {"run": str | None, "format": Literal["onnx", "safetensors"]})
        folder = find_run(cfg.run, BEST)
        from quadrant_lstm.run.export import export  # imports torch

        export(folder, cfg.format)


if __name__ == "__main__":
    with command():
        main()

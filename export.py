"""A run -> a file for other programs. `python export.py --help` tells how."""

from typing import Literal

import hydra
from omegaconf import DictConfig

from quadrant_lstm.cli.command import command, job
from quadrant_lstm.config.check import check_keys, trained_run
from quadrant_lstm.config.interpolations import resolved


@hydra.main(version_base="1.3", config_path="conf", config_name="export")
def main(cfg: DictConfig) -> None:
    with job():
        check_keys(resolved(cfg, trusted=True), {"run": str | None, "format": Literal["onnx", "safetensors"]})
        folder = trained_run(cfg.run)
        from quadrant_lstm.run.export import export  # imports torch

        export(folder, cfg.format)


if __name__ == "__main__":
    with command():
        main()

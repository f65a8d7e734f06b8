"""A run's config and its final metrics -> a row in TensorBoard's HParams tab, named as on the command line."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

BEST = "val/best_accuracy"  # the tab shows a curve's last value, and the best epoch need not be the last


def write_hyperparameters(writer: SummaryWriter, cfg: DictConfig, results: dict[str, Any], step: int) -> None:
    values = {"seed": cfg.seed, "trainer.max_epochs": cfg.trainer.max_epochs}
    for group in ("data", "model", "optimizer"):
        node: Any = OmegaConf.to_container(cfg[group], resolve=True)
        for name, value in node.items():
            if not name.startswith("_") and value is not None:
                values[f"{group}.{name}"] = value if isinstance(value, int | float | str) else str(value)
    metrics = {name: results[name] for name in ("test/accuracy", "test/loss")} | {BEST: results["val/accuracy"]}
    for summary in hparams(values, metrics):
        writer._get_file_writer().add_summary(summary)
    writer.add_scalar(BEST, results["val/accuracy"], step)  # test/accuracy and test/loss are there already
    writer.flush()

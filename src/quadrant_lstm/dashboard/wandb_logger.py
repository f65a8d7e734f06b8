"""Writes a run's metrics, config and pictures to Weights & Biases, by Lightning's logger."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from quadrant_lstm.dashboard.tracker import EXTRA, as_user_error, read_id, run_name, write_id
from quadrant_lstm.errors import needs_extra
from quadrant_lstm.run_folder import as_typed


class WandB(WandbLogger):
    """`options` are other arguments of Lightning's WandbLogger and of wandb.init, e.g. tags, group, entity."""

    def __init__(self, save_dir: str, project: str, offline: bool, **options: Any):
        with needs_extra("trainer.logger.wandb", EXTRA):
            import wandb
        if offline:  # not online, where it must be able to ask for an account
            wandb.setup(wandb.Settings(mode="offline", silent=True))
        self.folder, self.offline = Path(save_dir), offline
        options.setdefault("name", run_name(self.folder))
        options.setdefault("id", read_id(self.folder, "wandb"))
        super().__init__(save_dir=save_dir, project=project, offline=offline, **options)

    @rank_zero_only
    def start(self, config: dict[str, Any], step: int) -> None:
        from wandb.errors import Error

        remedy = "correct a value of trainer.logger.wandb"
        if not self.offline:
            remedy += ", log in with wandb login, or write trainer.logger.wandb.offline=true"
        with as_user_error("trainer.logger.wandb", (Error, TypeError), remedy):
            write_id(self.folder, "wandb", self.experiment.id)
        self.log_hyperparams(config)

    @rank_zero_only
    def add_picture(self, tag: str, pixels: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        self.log_image(tag, [pixels], step)

    def command_to_view(self) -> str:
        """Offline, each start of a run that resumes has a folder of its own."""
        run, folder = self.experiment, shlex.quote(str(as_typed(self.folder)))
        return f"wandb sync {folder}/wandb/offline-run-*" if run.offline else run.url or "wandb is disabled"

    @rank_zero_only
    def close(self, status: str) -> None:
        import wandb

        wandb.finish(exit_code=0 if status == "success" else 1)

"""Keys of a config -> what they may hold, where the signature of a class does not say it, or not enough."""

from typing import Annotated, Literal

from quadrant_lstm.kinds import (
    Accelerator,
    Count,
    Natural,
    Node,
    NonNegative,
    Positive,
    Precision,
    Probability,
    Share,
)

ROOT = {"seed": Natural, "run": str | None, "label_smoothing": Probability, "swept": list[str] | None}
GROUPS = ("data", "model", "optimizer", "schedule", "trainer")
# The classes that a config may build: one that came with somebody's run folder can name nothing else.
TARGETS = {
    "data": ("quadrant_lstm.data.",),
    "model": ("quadrant_lstm.model.",),
    "optimizer": ("torch.optim.",),
    "schedule": ("torch.optim.lr_scheduler.",),
    "trainer": (
        "quadrant_lstm.callbacks.",
        "quadrant_lstm.processes.strategy.",
        "quadrant_lstm.dashboard.",
        "quadrant_lstm.sweep.pruning.",
        "lightning.pytorch.Trainer",
        *(f"lightning.pytorch.{kind}." for kind in ("callbacks", "loggers", "strategies", "plugins", "profilers")),
    ),
}
GIVEN_BY_CODE = {"frame_shape", "num_classes", "orderings", "params", "optimizer", "total_steps", "T_max"}
REQUIRED = {"trainer.max_epochs", "trainer.precision", "trainer.callbacks"}  # by us, not by its class
KEEP_THE_RUN_FOLDER = ("best", "epoch_end")  # of trainer.callbacks
KINDS = {
    "data.augmentation": Node,
    "optimizer.lr": Positive,
    "optimizer.eps": Positive,
    "optimizer.weight_decay": NonNegative,
    "optimizer.momentum": Probability,
    "optimizer.betas": list[Probability],
    "schedule.max_lr": Positive,
    "schedule.pct_start": Probability,
    "schedule.div_factor": Positive,
    "schedule.final_div_factor": Positive,
    "schedule.eta_min": NonNegative,
    "schedule.gamma": Positive,
    "trainer.accelerator": Accelerator,
    "trainer.devices": Count | Literal["auto", -1] | list[Natural],
    "trainer.num_nodes": Count,
    "trainer.max_epochs": Count,
    "trainer.check_val_every_n_epoch": Literal[1],  # every epoch has its row in metrics.csv
    "trainer.log_every_n_steps": Count,
    "trainer.enable_checkpointing": Annotated[Literal[True] | None, "true: a run keeps its checkpoints"],
    "trainer.barebones": Annotated[Literal[False], "false: a run keeps its records"],
    "trainer.fast_dev_run": Annotated[Literal[False], "false; trainer=smoke does what it would"],
    "trainer.overfit_batches": Annotated[Literal[0], "0; trainer.limit_train_batches does what it would"],
    "trainer.limit_train_batches": Count | Share | None,
    "trainer.limit_val_batches": Count | Share | None,
    "trainer.limit_test_batches": Count | Share | None,
    "trainer.precision": Precision,
    "trainer.gradient_clip_val": NonNegative | None,
    "trainer.callbacks": Node,
    "trainer.callbacks.*": Node,
    "trainer.logger": Node | None | Annotated[Literal[False], "false"],
    "trainer.logger.*": Node,
}

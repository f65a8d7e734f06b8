"""Lists what each key of a config may hold and which classes a config may name. Imports no torch.

The defaults are in conf/. tests/config/test_schema.py compares these tables with conf/ and with the constructors.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from quadrant_lstm.kinds import (
    Accelerator,
    Blocks,
    Count,
    Counts,
    Fraction,
    Natural,
    Node,
    NonNegative,
    Orderings,
    Positive,
    Precision,
    Probability,
    Recurrence,
)

Kinds = Mapping[str, Any]
GROUPS = ("data", "model", "optimizer", "schedule", "trainer")
ROOT: Kinds = {"seed": Natural, "label_smoothing": Probability, "run": str | None, "swept": list[str] | None}

# All arguments that a config passes to the classes of this project; each is required. The code passes frame_shape,
# num_classes and orderings.
CLASSES: Mapping[str, Kinds] = {
    "quadrant_lstm.data.datamodule.SequenceDataModule": {
        "dataset": str,
        "root": str | None,
        "orderings": Orderings,
        "validation_images": Count,
        "validation_seed": Natural,
        "batch_size": Count,
        "seed": Natural,
        "augmentation": Node,
        "train_orderings": Orderings | None,
        "test_orderings": Orderings | None,
    },
    "quadrant_lstm.data.augmentation.Augmentation": {
        "rotation": NonNegative,
        "shift": NonNegative,
        "zoom": Probability,
        "shear": NonNegative,
        "elastic": NonNegative,
        "erase": Probability,
    },
    "quadrant_lstm.model.network.CNNLSTM": {
        "filters": Counts,
        "kernel_size": Count,
        "pool_size": Count,
        "dropout": Probability,
        "recurrent": Recurrence,
        "lstm_units": Count,
        "dense_units": Count,
        "shared_tiles": bool,
    },
    "quadrant_lstm.model.deep.DeepCNNLSTM": {
        "blocks": Blocks,
        "dropout": Probability,
        "recurrent": Recurrence,
        "lstm_units": Count,
    },
    "quadrant_lstm.processes.strategy.DDP": {"timeout": Positive, "**": Any},  # and any argument of DDPStrategy
    "quadrant_lstm.callbacks.finite.Finite": {},
    "quadrant_lstm.callbacks.reseed.Reseed": {"seed": Natural},
    "quadrant_lstm.callbacks.ema.EMA": {"decay": Probability | None},
    "quadrant_lstm.callbacks.progress.Progress": {},
    "quadrant_lstm.callbacks.epoch_end.Best": {},
    "quadrant_lstm.callbacks.epoch_end.EpochEnd": {},
    "quadrant_lstm.dashboard.dashboard.Dashboard": {},
    "quadrant_lstm.dashboard.tensorboard.TensorBoard": {"save_dir": str},
    "quadrant_lstm.sweep.pruning.Pruning": {},
}

# The arguments of torch's and Lightning's classes that conf/ sets or a run restricts. Other arguments are compared with
# the signatures of the classes once torch is imported (config/signatures.py).
LIBRARIES: Mapping[str, Kinds] = {
    "optimizer": {
        "lr": Positive,
        "betas": list[Probability],
        "eps": Positive,
        "momentum": Probability,
        "nesterov": bool,
        "weight_decay": NonNegative,
        "fused": bool | None,
    },
    "schedule": {
        "factor": Positive,
        "total_iters": Natural,
        "eta_min": NonNegative,
        "gamma": Positive,
        "max_lr": Positive,
        "pct_start": Probability,
        "div_factor": Positive,
        "final_div_factor": Positive,
        "cycle_momentum": bool,
    },
    "trainer": {
        "accelerator": Accelerator,
        "devices": Count | Literal["auto", -1] | list[Natural],
        "num_nodes": Count,
        "strategy": str | Node,
        "precision": Precision,
        "max_epochs": Count,
        "gradient_clip_val": NonNegative | None,
        "limit_train_batches": Count | Fraction | None,
        "limit_val_batches": Count | Fraction | None,
        "limit_test_batches": Count | Fraction | None,
        "num_sanity_val_steps": Natural,
        "log_every_n_steps": Count,
        "enable_model_summary": bool,
        "use_distributed_sampler": bool,
        "enable_autolog_hparams": bool,
        "logger": Node | None | Annotated[Literal[False], "false"],
        "logger.*": Node,
        "callbacks": Node,
        "callbacks.*": Node,
        "check_val_every_n_epoch": Literal[1],  # each row of metrics.csv has validation metrics
        "enable_checkpointing": Annotated[Literal[True] | None, "true, because a run needs its checkpoints"],
        "barebones": Annotated[Literal[False], "false, because a run needs its loggers and checkpoints"],
        "fast_dev_run": Annotated[Literal[False], "false; use trainer=smoke instead"],
        "overfit_batches": Annotated[Literal[0], "0; use trainer.limit_train_batches instead"],
    },
}
REQUIRED = ("trainer.max_epochs", "trainer.precision", "trainer.callbacks.best", "trainer.callbacks.epoch_end")

# The prefixes of the classes that each group may name; nothing else is instantiated.
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

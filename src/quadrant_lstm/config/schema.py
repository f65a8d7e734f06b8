"""Lists what each key of a config may hold and which classes a config may name. Imports no torch.

The defaults are in conf/. tests/config/test_schema.py compares these tables with conf/ and with the constructors.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from quadrant_lstm import kinds

Kinds = Mapping[str, Any]
GROUPS = ("data", "model", "optimizer", "schedule", "trainer")
ROOT: Kinds = {
    "seed": kinds.Natural,
    "label_smoothing": kinds.BelowOne,
    "keep": kinds.Keep,
    "init": str | None,
    "run": str | None,
    "swept": list[str] | None,
}

# All arguments that a config passes to the classes of this project; each is required. The code passes frame_shape,
# num_classes, num_steps, orderings, grid, and the sizes of encoders and recurrent layers.
CLASSES: Mapping[str, Kinds] = {
    "quadrant_lstm.data.image_sequences.ImageSequences": {
        "dataset": kinds.Dataset,
        "root": str | None,
        "grid": kinds.Grid,
        "orderings": kinds.OrderingsOrNames,
        "validation_images": kinds.Natural,
        "validation_seed": kinds.Natural,
        "batch_size": kinds.Count,
        "seed": kinds.Natural,
        "augmentation": kinds.Node,
        "train_orderings": kinds.OrderingsOrNames | None,
        "test_orderings": kinds.OrderingsOrNames | None,
        "fold": kinds.Natural | None,
        "num_folds": kinds.AtLeastTwo,
    },
    "quadrant_lstm.data.moving_digits.MovingDigits": {
        "dataset": kinds.Dataset,
        "root": str | None,
        "label": Literal["digit", "motion"],
        "num_frames": kinds.Count,
        "canvas": kinds.Size,
        "speed": kinds.Count,
        "validation_images": kinds.Natural,
        "validation_seed": kinds.Natural,
        "batch_size": kinds.Count,
        "seed": kinds.Natural,
        "fold": kinds.Natural | None,
        "num_folds": kinds.AtLeastTwo,
    },
    "quadrant_lstm.data.clips.Clips": {
        "root": str | None,
        "num_frames": kinds.Count | None,
        "frame_step": kinds.Count,
        "size": kinds.Size | None,
        "channels": Literal[1, 3],
        "layout": Literal["TCHW", "CTHW", "THWC", "THW"] | None,
        "test_share": kinds.Share,
        "validation_share": kinds.BelowOne,
        "validation_seed": kinds.Natural,
        "batch_size": kinds.Count,
        "num_workers": kinds.Natural,
        "cache_gb": kinds.NonNegative,
        "skip_broken": bool,
        "seed": kinds.Natural,
        "augmentation": kinds.Node,
        "fold": kinds.Natural | None,
        "num_folds": kinds.AtLeastTwo,
    },
    "quadrant_lstm.data.augmentation.Augmentation": {
        "rotation": kinds.NonNegative,
        "shift": kinds.NonNegative,
        "zoom": kinds.BelowOne,
        "shear": kinds.NonNegative,
        "elastic": kinds.NonNegative,
        "erase": kinds.BelowOne,
    },
    "quadrant_lstm.model.network.CNNLSTM": {
        "filters": kinds.Counts,
        "kernel_size": kinds.Count,
        "pool_size": kinds.Count,
        "recurrent": kinds.Node,
        "dropout": kinds.BelowOne,
        "lstm_units": kinds.Count,
        "dense_units": kinds.Count,
        "shared_tiles": bool,
    },
    "quadrant_lstm.model.deep.DeepCNNLSTM": {
        "blocks": kinds.Blocks,
        "recurrent": kinds.Node,
        "dropout": kinds.BelowOne,
        "lstm_units": kinds.Count,
        "join_pieces": bool,
    },
    "quadrant_lstm.model.network.Join": {
        "encoder": kinds.Node,
        "recurrent": kinds.Node,
        "dropout": kinds.BelowOne,
        "lstm_units": kinds.Count,
        "dense_units": kinds.Count,
        "shared_tiles": bool,
    },
    "quadrant_lstm.model.network.Reshaped": {
        "filters": kinds.Counts,
        "kernel_size": kinds.Count,
        "pool_size": kinds.Count,
        "dropout": kinds.BelowOne,
        "lstm_units": kinds.Count,
        "dense_units": kinds.Count,
    },
    "quadrant_lstm.model.encoder.RowsEncoder": {"row_units": kinds.Count},
    "quadrant_lstm.model.encoder.ConvEncoder": {
        "filters": kinds.Counts,
        "kernel_size": kinds.Count,
        "pool_size": kinds.Count,
    },
    "quadrant_lstm.model.encoder.PaddedEncoder": {"blocks": kinds.Blocks},
    "quadrant_lstm.model.encoder.Backbone": {
        "name": str,
        "weights": str | None,
        "frozen": bool,
        "size": kinds.Count | None,
    },
    "quadrant_lstm.model.rnn.LSTM": {"num_layers": kinds.Count, "bidirectional": bool},
    "quadrant_lstm.model.rnn.GRU": {"num_layers": kinds.Count, "bidirectional": bool},
    "quadrant_lstm.model.conv_lstm.ConvLSTM": {"kernel_size": kinds.Count, "padding": Literal["same", "valid"]},
    "quadrant_lstm.model.transformer.Transformer": {"num_layers": kinds.Count, "num_heads": kinds.Count},
    "quadrant_lstm.model.memoryless.RunningMean": {},
    "quadrant_lstm.model.memoryless.PerStep": {},
    "quadrant_lstm.model.memoryless.Concatenated": {},
    "quadrant_lstm.processes.launch.DDP": {"timeout": kinds.Positive, "**": Any},  # and any argument of DDPStrategy
    "quadrant_lstm.callbacks.training.Finite": {},
    "quadrant_lstm.callbacks.training.Reseed": {"seed": kinds.Natural},
    "quadrant_lstm.callbacks.training.EMA": {"decay": kinds.BelowOne | None},
    "quadrant_lstm.callbacks.training.Progress": {},
    "quadrant_lstm.callbacks.training.EarlyStopping": {
        "monitor": Literal["val/accuracy", "val/loss", "train/accuracy", "train/loss"],
        "patience": kinds.Count,
        "min_delta": kinds.NonNegative,
    },
    "quadrant_lstm.callbacks.checkpoints.Best": {"keep": kinds.Keep},
    "quadrant_lstm.callbacks.checkpoints.EpochEnd": {},
    "quadrant_lstm.dashboard.dashboard.Dashboard": {},
    "quadrant_lstm.dashboard.loggers.TensorBoard": {"save_dir": str},
    "quadrant_lstm.dashboard.loggers.WandB": {"save_dir": str, "project": str, "offline": bool, "**": Any},
    "quadrant_lstm.dashboard.loggers.MLflow": {
        "save_dir": str,
        "experiment_name": str,
        "tracking_uri": str | None,
    },
    "quadrant_lstm.sweep.pruning.Pruning": {},
}

# The arguments of torch's and Lightning's classes that conf/ sets or a run restricts. Other arguments are compared with
# the signatures of the classes once torch is imported (config/signatures.py).
LIBRARIES: Mapping[str, Kinds] = {
    "optimizer": {
        "lr": kinds.Positive,
        "betas": kinds.Betas,
        "eps": kinds.Positive,
        "momentum": kinds.BelowOne,
        "nesterov": bool,
        "weight_decay": kinds.NonNegative,
        "fused": bool | None,
    },
    "schedule": {
        "factor": kinds.Fraction,
        "total_iters": kinds.Natural,
        "eta_min": kinds.NonNegative,
        "gamma": kinds.Positive,
        "max_lr": kinds.Positive,
        "pct_start": kinds.BelowOne,
        "div_factor": kinds.Positive,
        "final_div_factor": kinds.Positive,
        "cycle_momentum": bool,
    },
    "trainer": {
        "accelerator": kinds.Accelerator,
        "devices": kinds.Count | Literal["auto", -1] | list[kinds.Natural],
        "num_nodes": kinds.Count,
        "strategy": str | kinds.Node,
        "precision": kinds.Precision,
        "max_epochs": kinds.Count,
        "gradient_clip_val": kinds.NonNegative | None,
        "limit_train_batches": kinds.Count | kinds.Fraction | None,
        "limit_val_batches": kinds.Count | kinds.Fraction | None,
        "limit_test_batches": kinds.Count | kinds.Fraction | None,
        "num_sanity_val_steps": kinds.Natural,
        "log_every_n_steps": kinds.Count,
        "enable_model_summary": bool,
        "use_distributed_sampler": bool,
        "enable_autolog_hparams": bool,
        "logger": kinds.Node | None | Annotated[Literal[False], "false"],
        "logger.*": kinds.Node,
        "profiler": kinds.Node | str | None,
        "callbacks": kinds.Node,
        "callbacks.*": kinds.Node,
        "plugins": Annotated[None, "null, because a run needs its own plugin; leave it out"],
        "default_root_dir": Annotated[None, "null; use hydra.run.dir instead"],
        "val_check_interval": Annotated[Literal[1], "1, for validation at the end of every epoch; leave it out"],
        "max_steps": Annotated[Literal[-1], "-1, because runs end after an epoch; use trainer.max_epochs instead"],
        "check_val_every_n_epoch": Annotated[Literal[1], "1, for validation in every epoch; leave it out"],
        "enable_checkpointing": Annotated[Literal[True] | None, "true, because a run needs them; leave it out"],
        "barebones": Annotated[Literal[False], "false, because a run needs its checkpoints; leave it out"],
        "fast_dev_run": Annotated[Literal[False], "false; use trainer=smoke instead"],
        "overfit_batches": kinds.Natural | kinds.Fraction,
    },
}
REQUIRED = ("trainer.max_epochs", "trainer.precision", "trainer.callbacks.best", "trainer.callbacks.epoch_end")

# The packages whose classes each group may name, and single classes. What is typed may name any class, except in data;
# the config of a run folder may name others that its reader trusts.
TARGETS = {
    "data": ("quadrant_lstm.data.",),
    "model": ("quadrant_lstm.model.", "torch.nn."),
    "optimizer": ("torch.optim.",),
    "schedule": ("torch.optim.lr_scheduler.",),
    "trainer": (
        "quadrant_lstm.callbacks.",
        "quadrant_lstm.processes.launch.DDP",
        "quadrant_lstm.dashboard.",
        "quadrant_lstm.sweep.pruning.Pruning",
        "lightning.pytorch.",
        *(f"lightning.pytorch.{kind}." for kind in ("callbacks", "strategies", "profilers")),
        # the other loggers write to the working directory, or to a server
        *(f"lightning.pytorch.loggers.{name}" for name in ("CSVLogger", "TensorBoardLogger")),
    ),
}

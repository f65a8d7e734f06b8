"""Converts the config of a run made by an older version to the current keys, so that it can be read and resumed."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

RENAMED = {
    "quadrant_lstm.run.progress.Progress": "quadrant_lstm.callbacks.training.Progress",
    "quadrant_lstm.run.ddp.DDP": "quadrant_lstm.processes.launch.DDP",
    "${oc.env:HOME,.}/.cache": "~/.cache",
    "quadrant_lstm.dashboard.tensorboard.TensorBoard": "quadrant_lstm.dashboard.loggers.TensorBoard",
    "quadrant_lstm.dashboard.trackers.WandB": "quadrant_lstm.dashboard.loggers.WandB",
    "quadrant_lstm.dashboard.trackers.MLflow": "quadrant_lstm.dashboard.loggers.MLflow",
}

RNN = {"num_layers": 1, "bidirectional": False}
RECURRENT: dict[str, dict[str, Any]] = {  # what the former words of model.recurrent stand for
    "lstm": {"_target_": "quadrant_lstm.model.rnn.LSTM", **RNN},
    "gru": {"_target_": "quadrant_lstm.model.rnn.GRU", **RNN},
    "mean": {"_target_": "quadrant_lstm.model.memoryless.RunningMean"},
    "last": {"_target_": "quadrant_lstm.model.memoryless.PerStep"},
    "concat": {"_target_": "quadrant_lstm.model.memoryless.Concatenated"},
}


def upgrade(cfg: DictConfig) -> DictConfig:
    cfg = rename(cfg)
    if OmegaConf.select(cfg, "data._target_") == "quadrant_lstm.data.datamodule.SequenceDataModule":
        cfg.data._target_ = "quadrant_lstm.data.image_sequences.ImageSequences"
        cfg.data = OmegaConf.merge({"grid": [2, 2], "fold": None, "num_folds": 5}, cfg.data)
    recurrent = OmegaConf.select(cfg, "model.recurrent")
    if recurrent in RECURRENT:
        OmegaConf.update(cfg, "model.recurrent", RECURRENT[recurrent] | {"_partial_": True})
    elif isinstance(recurrent, DictConfig):
        recurrent.pop("num_steps", None)  # the network adds it
    if "keep" not in cfg:
        cfg.keep = "best"
        if OmegaConf.select(cfg, "trainer.callbacks.best"):
            cfg.trainer.callbacks.best.keep = "${keep}"
    if OmegaConf.select(cfg, "model._target_") == "quadrant_lstm.model.deep.DeepCNNLSTM":
        cfg.model = OmegaConf.merge({"join_pieces": True}, cfg.model)
    return list_callbacks(cfg)


def rename(cfg: DictConfig) -> DictConfig:
    text = new = OmegaConf.to_yaml(cfg)
    for old, current in RENAMED.items():
        new = new.replace(old, current)
    return cfg if new == text else OmegaConf.create(new)  # type: ignore[return-value]  # the text is that of a dict


def list_callbacks(cfg: DictConfig) -> DictConfig:
    """Replaces the root key `ema_decay` of version 0.1, and lists the callbacks that its config did not list."""
    if "ema_decay" not in cfg or not isinstance(cfg.get("trainer"), DictConfig):
        return cfg
    config: Any = OmegaConf.to_container(cfg)
    config["trainer"]["callbacks"] = {
        "finite": {"_target_": "quadrant_lstm.callbacks.training.Finite"},
        "reseed": {"_target_": "quadrant_lstm.callbacks.training.Reseed", "seed": "${seed}"},
        "ema": {"_target_": "quadrant_lstm.callbacks.training.EMA", "decay": config.pop("ema_decay")},
        **(config["trainer"].get("callbacks") or {}),
        "best": {"_target_": "quadrant_lstm.callbacks.checkpoints.Best", "keep": "${keep}"},
        "epoch_end": {"_target_": "quadrant_lstm.callbacks.checkpoints.EpochEnd"},
    }
    return OmegaConf.create(config | {"swept": None})

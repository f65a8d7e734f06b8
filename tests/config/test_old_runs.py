"""Tests that run folders of version 0.1 can be read; version_0_1.yaml is the config of one."""

import shutil
from pathlib import Path

from omegaconf import OmegaConf

from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.config.old_runs import upgrade
from quadrant_lstm.config.read import read_config
from quadrant_lstm.run_folder import read_results
from tests.scripts import script

OLD = Path(__file__).with_name("version_0_1.yaml")


def test_an_old_config_gets_the_current_keys():
    cfg = read_config(OLD)
    assert "ema_decay" not in cfg
    assert OmegaConf.select(cfg, "trainer.callbacks.ema.decay") == 0.9
    assert OmegaConf.select(cfg, "trainer.callbacks.progress._target_") == "quadrant_lstm.callbacks.training.Progress"


def test_a_current_config_stays_unchanged(finished_run):
    file = finished_run / ".hydra/config.yaml"
    assert read_config(file) == OmegaConf.load(file)


def test_a_deep_network_joined_the_pieces():
    deep = {"_target_": "quadrant_lstm.model.deep.DeepCNNLSTM"}
    assert upgrade(OmegaConf.create({"model": deep})).model.join_pieces is True
    assert upgrade(OmegaConf.create({"model": deep | {"join_pieces": False}})).model.join_pieces is False


def test_a_logger_is_found_where_its_class_is_now():
    logger = {"mlflow": {"_target_": "quadrant_lstm.dashboard.trackers.MLflow", "save_dir": "${hydra:run.dir}"}}
    upgraded = upgrade(OmegaConf.create({"trainer": {"logger": logger}}))
    new = "quadrant_lstm.dashboard.loggers.MLflow"
    expected = {"mlflow": {"_target_": new, "save_dir": "${hydra:run.dir}"}}
    assert OmegaConf.to_container(upgraded.trainer.logger) == expected


def test_an_old_run_without_a_checkpoint_starts_in_its_folder(tmp_path):
    config = tmp_path / "run/.hydra/config.yaml"
    config.parent.mkdir(parents=True)
    shutil.copy(OLD, config)
    done = script("train.py", "run=run", "~trainer.callbacks.dashboard", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_results(tmp_path / "run")["epochs"] == 2
    assert "current_model_state" in read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")  # besides the average

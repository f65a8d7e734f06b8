"""Tests that all jobs of a sweep have the config that it began with, whatever happens to conf/ and to its folders."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.quadrants.kept_config import CHECKSUM, KeptConfigLoader, checksum, keep_files
from quadrant_lstm.cli.command import mistake_in
from quadrant_lstm.compat import OF_COMPOSE
from quadrant_lstm.config.check import check_trained_with
from quadrant_lstm.errors import UserError
from tests.folders import TINY, sweep_folder, tiny_data
from tests.malformed import replaced
from tests.scripts import ROOT, Script, succeeds, waiting_after

EDITS = {
    "data/mnist.yaml": ("validation_seed: 0", "validation_seed: 1", "data.validation_seed"),
    "optimizer/adam.yaml": ("lr: 0.001", "lr: 0.01", "optimizer.lr"),
    "model/cnn_lstm.yaml": ("lstm_units: 5", "lstm_units: 7", "model.lstm_units=5 (now 7 in conf/)"),
    "train.yaml": ("- schedule: constant", "- schedule: cosine", "schedule._target_"),
}


def copy_project(folder: Path) -> Path:
    """Returns a train.py with a conf/ of its own."""
    shutil.copytree(ROOT / "conf", folder / "conf")
    return Path(shutil.copy(ROOT / "train.py", folder))


def test_a_resumed_sweep_does_not_use_an_edited_conf(tmp_path):
    train = copy_project(tmp_path)
    words = (*tiny_data(tmp_path), *TINY, "trainer.max_epochs=2", "seed=1,2")
    process = Script(train, "-m", *words, cwd=tmp_path, before=waiting_after(1, "0"))
    process.wait_for("outputs/sweeps/*/*/0/checkpoints/last.ckpt")
    process.kill()
    first, second = (sweep_folder(tmp_path) / job / ".hydra/config.yaml" for job in "01")
    config = first.read_text()
    for name, (old, new, _) in EDITS.items():
        replaced(old, new)(tmp_path / "conf" / name)
    done = succeeds(train, "sweep=latest", cwd=tmp_path)
    line = done.stdout.splitlines()[0]
    assert line.startswith("conf/ has changed since this sweep began; the sweep keeps ")
    assert [key for _, _, key in EDITS.values() if key not in line] == []
    assert first.read_text() == config
    assert second.read_text() == config.replace("seed: 1\n", "seed: 2\n", 1)


def test_a_job_is_not_resumed_with_another_config_than_it_was_trained_with(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/config.yaml").write_text("optimizer: {lr: 0.1}\nseed: 1")
    check_trained_with(tmp_path, OmegaConf.create({"seed": 1, "optimizer": {"lr": 0.1}, "init": "outputs/other"}))
    with pytest.raises(UserError, match=f"optimizer.lr: {tmp_path} was trained with 0.1, but conf/ or an ov"):
        check_trained_with(tmp_path, OmegaConf.create({"seed": 1, "optimizer": {"lr": 0.2}}))


@pytest.fixture
def foreign(tmp_path):
    """Returns a function that composes a job after an edit of the copy of conf/ in the folder of a sweep."""
    setup_globals()  # Hydra's resolvers
    loader = ConfigLoaderImpl(create_config_search_path(str(ROOT / "conf")))
    keep_files(loader, "train", [], tmp_path)
    master = loader.load_configuration("train", [], RunMode.MULTIRUN)

    def composed(name: str, text: str, job: str = "seed=2") -> tuple[KeptConfigLoader, DictConfig]:
        """The text replaces the lines of the same keys."""
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        keys = tuple(line.partition(":")[0] + ":" for line in text.splitlines())
        lines = file.read_text().splitlines() if file.exists() else []
        file.write_text("\n".join([*(line for line in lines if not line.startswith(keys)), text]))
        (tmp_path / CHECKSUM).write_bytes(checksum(tmp_path))
        kept = KeptConfigLoader(loader, tmp_path, "train", is_resumed=True)
        return kept, kept.load_sweep_config(master, [job])

    return composed


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("model/cnn_lstm.yaml", "_target_: pathlib.Path", "model._target_: pathlib.Path may run other code"),
        ("data/mnist.yaml", "root: ${oc.env:HOME}", "data.root: ${oc.env:HOME} may run other code, read the environm"),
        ("trainer/logger/tensorboard.yaml", "  save_dir: /x", "trainer.logger.tensorboard.save_dir: /x may run other "),
        ("data/mnist.yaml", "root: /theirs\ndataset: KMNIST", "data.root: /theirs is outside the run folder"),
        ("train.yaml", "hydra: {searchpath: [file:///theirs]}", "train.yaml: has a key hydra"),
    ],
)
def test_a_copy_from_somebody_else_cannot_run_code_or_write_elsewhere(name, text, message, foreign):
    with pytest.raises(UserError, match=re.escape(message)):
        foreign(name, text)


def test_a_file_beside_the_copy_is_checked_too(foreign, tmp_path):
    (tmp_path / "extra").mkdir()
    evil = "# @package _global_\ntrainer: {callbacks: {e: {_target_: logging.Handler}}}"
    (tmp_path.parent / "evil.yaml").write_text(evil)
    ours = "logging.Handler may run other code, .*; if you trust it, write it into conf/"
    with pytest.raises((UserError, HydraException), match=f"{ours}|Parent traversal"):  # the latter of Hydra 1.4
        foreign("extra/a.yaml", "", "+extra=../../evil")


def test_a_copy_that_was_edited_or_lost_is_refused(foreign, tmp_path):
    message = f"{tmp_path}.*: is not the config that the sweep began with; restore it, or start a new sweep."
    with pytest.raises(UserError, match=message):
        KeptConfigLoader(None, tmp_path / "lost", "train", is_resumed=True)
    replaced("label_smoothing: 0.0", "label_smoothing: 0.3")(tmp_path / "train.yaml")
    with pytest.raises(UserError, match=message):
        KeptConfigLoader(None, tmp_path, "train", is_resumed=True)


def test_a_file_that_the_copy_has_lost_is_not_taken_from_conf(foreign, tmp_path):
    (tmp_path / "optimizer/adam.yaml").unlink()
    with pytest.raises(MissingConfigException):
        foreign("optimizer/sgd.yaml", "")


def test_other_values_and_choices_of_the_copy_are_used_but_not_its_logging(foreign, tmp_path):
    shutil.copy(ROOT / "conf/model/cnn_lstm.yaml", tmp_path / "model/theirs.yaml")
    foreign("hydra/job_logging/run.yaml", "evil: 1")
    loader, config = foreign("optimizer/adam.yaml", "lr: 0.5")
    assert config.optimizer.lr == 0.5
    assert loader.differences == {"optimizer.lr": (0.5, 0.001)}
    assert "evil" not in config.hydra.job_logging
    assert foreign("model/theirs.yaml", "dropout: 0.5", "model=theirs")[1].model.dropout == 0.5


@pytest.mark.parametrize(("content", "message"), [(b"a: [", "YAML of that file."), (b"# \xfc", "is not UTF-8 text")])
def test_a_config_file_that_cannot_be_read_is_named(content, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(copy_project(tmp_path))])
    (tmp_path / "conf/experiment/broken.yaml").write_bytes(content)
    with initialize_config_dir(str(tmp_path / "conf"), **OF_COMPOSE), pytest.raises(Exception) as raised:
        compose("train", ["experiment=broken"])
    mistake = str(mistake_in(raised.value))
    assert "broken.yaml" in mistake and message in mistake

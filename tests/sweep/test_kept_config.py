"""Tests that all jobs of a sweep have the config that it began with, whatever happens to conf/ and to its folders."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.quadrants.kept_config import KeptConfigLoader, keep_files, record_checksum
from hydra_plugins.quadrants.launchers import check_trained_with
from hydra_plugins.quadrants.sweepers import enumerated
from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.sweep_folder import combinations
from tests.folders import TINY, sweep_folder, tiny_data
from tests.scripts import ROOT, Script, script, waiting_after

EDITS = {
    "data/mnist.yaml": ("validation_seed: 0", "validation_seed: 1", "data.validation_seed"),
    "optimizer/adam.yaml": ("lr: 0.001", "lr: 0.01", "optimizer.lr"),
    "model/cnn_lstm.yaml": ("lstm_units: 5", "lstm_units: 7", "model.lstm_units=5 (now 7 in conf/)"),
    "train.yaml": ("- schedule: constant", "- schedule: cosine", "schedule._target_"),
}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def copy_project(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Returns a train.py with a conf/ of its own, and arguments for data in the folder."""
    shutil.copytree(ROOT / "conf", folder / "conf")
    return Path(shutil.copy(ROOT / "train.py", folder)), (*tiny_data(folder), *TINY, "trainer.max_epochs=2")


def test_a_resumed_sweep_does_not_use_an_edited_conf(tmp_path):
    folders = (tmp_path / "killed", tmp_path / "uninterrupted")
    (train, words), (other, same_words) = map(copy_project, folders)
    assert script(other, "-m", *same_words, "seed=1,2", cwd=folders[1]).returncode == 0
    process = Script(train, "-m", *words, "seed=1,2", cwd=folders[0], before=waiting_after(1, "0"))
    process.wait_for("outputs/sweeps/*/*/0/checkpoints/last.ckpt")
    process.kill()
    sweep = sweep_folder(folders[0])
    config = (sweep / "0/.hydra/config.yaml").read_bytes()
    for name, (old, new, _) in EDITS.items():
        edit(folders[0] / "conf" / name, old, new)
    done = script(train, "sweep=latest", cwd=folders[0])
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[0]
    assert line.startswith("conf/ has changed since this sweep began; the sweep keeps ")
    assert [key for _, _, key in EDITS.values() if key not in line] == []
    assert (sweep / "0/.hydra/config.yaml").read_bytes() == config
    for job in ("0", "1"):
        one, another = (read_checkpoint(path / job / "checkpoints/last.ckpt")["state_dict"]
                        for path in (sweep, sweep_folder(folders[1])))  # fmt: skip
        assert all(torch.equal(weights, another[name]) for name, weights in one.items())

    shutil.rmtree(sweep / "1")
    edit(sweep / "conf/train.yaml", "label_smoothing: 0.0", "label_smoothing: 0.3")
    done = script(train, "sweep=latest", cwd=folders[0])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "/conf: is not the config that the sweep began with; restore it, or start a new sweep." in done.stderr
    assert not (sweep / "1").exists()


def test_a_job_is_not_resumed_with_another_config_than_it_was_trained_with(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/config.yaml").write_text("optimizer: {lr: 0.1}\nseed: 1")
    check_trained_with(tmp_path, OmegaConf.create({"seed": 1, "optimizer": {"lr": 0.1}}))
    with pytest.raises(UserError, match=f"optimizer.lr: {tmp_path} was trained with 0.1, but its sweep has 0.2; resum"):
        check_trained_with(tmp_path, OmegaConf.create({"seed": 1, "optimizer": {"lr": 0.2}}))


@pytest.mark.parametrize(
    ("typed", "used"),
    [
        ("lr=1e-3,0.001,1e-03,2", "lr=0.001,2"),
        ("seed=9007199254740993,9007199254740992,9007199254740993", "seed=9007199254740993,9007199254740992"),
        ("model=choice(a,b,a)", "model=a,b"),
        ("data.orderings=[[1,2],[2,1]],[[1, 2],[2, 1]]", "data.orderings=[[1,2],[2,1]]"),
        *((same, same) for same in ("seed=1,2", "key=true,1", "key='1',1", "key=null,a", "seed=range(1,3)")),
    ],
)
def test_equal_values_are_used_once(typed, used, capsys):
    (override,) = OverridesParser.create().parse_overrides([typed])
    assert enumerated(override) == used
    said = f"{typed}: equal values would train equal jobs, so each is used once\n"
    assert capsys.readouterr().out == ("" if typed == used else said)


def test_shuffled_values_and_those_of_a_glob_are_recorded_in_their_order():
    loader = ConfigLoaderImpl(create_config_search_path(str(ROOT / "conf")))
    words = ["seed=shuffle(1,2,3,4)", "schedule=glob(c*)"]
    shuffled, found = map(enumerated, OverridesParser.create(config_loader=loader).parse_overrides(words))
    assert sorted(shuffled.removeprefix("seed=").split(",")) == ["1", "2", "3", "4"]
    assert found == "schedule=constant,cosine"


def test_a_sweep_without_values_is_refused():
    (override,) = OverridesParser.create().parse_overrides(["seed=range(1,1)"])
    with pytest.raises(UserError, match=r"seed=range\(1,1\): has no values, so there is no job to run; give some."):
        enumerated(override)


def test_of_a_key_that_is_swept_twice_the_last_values_count():
    overrides = OverridesParser.create().parse_overrides(["seed=1,2", "lr=3", "seed=2,3", "++seed=4,5"])
    assert combinations(overrides) == [["++seed=4", "lr=3"], ["++seed=5", "lr=3"]]


def test_the_folder_of_a_sweep_may_be_named_by_a_key_that_the_sweep_varies(tmp_path):
    words = (*tiny_data(tmp_path), *TINY, "trainer.max_epochs=1", "seed=1,2", "hydra.sweep.dir=sweep_${seed}")
    done = script("train.py", "-m", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sweep_1/1/results.json").exists()


@pytest.fixture
def foreign(tmp_path):
    """Returns a function that composes a job after an edit of the copy of conf/ in the folder of a sweep."""
    loader = ConfigLoaderImpl(create_config_search_path(str(ROOT / "conf")))
    keep_files(loader, "train", [], tmp_path)
    master = loader.load_configuration("train", [], RunMode.MULTIRUN)

    def compose(name: str, text: str, job: str = "seed=2") -> tuple[KeptConfigLoader, DictConfig]:
        """The text replaces the lines of the same keys."""
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        keys = tuple(line.partition(":")[0] + ":" for line in text.splitlines())
        lines = file.read_text().splitlines() if file.exists() else []
        file.write_text("\n".join([*(line for line in lines if not line.startswith(keys)), text]))
        record_checksum(tmp_path)
        kept = KeptConfigLoader(loader, tmp_path, "train", is_resumed=True)
        return kept, kept.load_sweep_config(master, [job])

    return compose


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


def test_a_lost_copy_is_refused(tmp_path):
    with pytest.raises(UserError, match="/conf: is not the config that the sweep began with; restore it, or start"):
        KeptConfigLoader(None, tmp_path / "conf", "train", is_resumed=True)


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
def test_a_config_file_that_cannot_be_read_costs_one_line(content, message, tmp_path):
    train, _ = copy_project(tmp_path)
    (tmp_path / "conf/experiment/broken.yaml").write_bytes(content)
    done = script(train, "experiment=broken", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "broken.yaml" in done.stderr and message in done.stderr

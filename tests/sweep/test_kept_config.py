"""Tests that all jobs of a sweep have the config that it began with, whatever happens to conf/ and to its folders."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.quadrants.kept_config import KeptConfigLoader, keep_files, record_checksum
from hydra_plugins.quadrants.launchers import check_trained_with
from hydra_plugins.quadrants.sweepers import enumerated
from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.errors import UserError
from tests.folders import TINY, sweep_folder, tiny_data
from tests.scripts import ROOT, Script, script, waiting_after

EDITS = {
    "data/mnist.yaml": (("validation_seed: 0", "validation_seed: 1"), ("- [4, 2, 3, 1]", "- [2, 1, 4, 3]")),
    "optimizer/adam.yaml": (("lr: 0.001", "lr: 0.01"),),
    "model/cnn_lstm.yaml": (("dropout: 0.25", "dropout: 0.5"), ("lstm_units: 5", "lstm_units: 7")),
    "train.yaml": (("label_smoothing: 0.0", "label_smoothing: 0.1"), ("- optimizer: adam", "- optimizer: sgd")),
}
EDITED_KEYS = ("data.orderings.3.0", "data.validation_seed", "label_smoothing", "model.dropout", "model.lstm_units",
               "optimizer._target_")  # fmt: skip


def edit(conf: Path) -> None:
    for name, replacements in EDITS.items():
        text = (conf / name).read_text()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        (conf / name).write_text(text)


def copy_project(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Returns a train.py with a conf/ of its own, and arguments for data in the folder."""
    shutil.copytree(ROOT / "conf", folder / "conf")
    return Path(shutil.copy(ROOT / "train.py", folder)), (*tiny_data(folder), *TINY)


def test_a_resumed_sweep_does_not_use_an_edited_conf(tmp_path):
    folders = (tmp_path / "killed", tmp_path / "uninterrupted")
    (train, words), (other, same_words) = map(copy_project, folders)
    assert script(other, "-m", *same_words, "seed=1,2", cwd=folders[1]).returncode == 0
    process = Script(train, "-m", *words, "seed=1,2", cwd=folders[0], before=waiting_after(2, "0"))
    process.wait_for("outputs/sweeps/*/*/0/checkpoints/last.ckpt")
    process.kill()
    sweep = sweep_folder(folders[0])
    config = (sweep / "0/.hydra/config.yaml").read_bytes()
    edit(folders[0] / "conf")
    done = script(train, "sweep=latest", cwd=folders[0])
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[0]
    assert line.startswith("conf/ has changed since this sweep began; the sweep keeps ")
    assert [key for key in EDITED_KEYS if f"{key}=" not in line] == []
    assert "model.lstm_units=5 (now 7 in conf/)" in line
    assert (sweep / "0/.hydra/config.yaml").read_bytes() == config
    for job in ("0", "1"):
        one, another = (read_checkpoint(path / job / "checkpoints/last.ckpt")["state_dict"]
                        for path in (sweep, sweep_folder(folders[1])))  # fmt: skip
        assert all(torch.equal(weights, another[name]) for name, weights in one.items())

    shutil.rmtree(sweep / "conf")
    refused = script(train, "sweep=latest", cwd=folders[0])
    assert refused.returncode == 2
    assert "has no conf/, the copy of conf/ that it began with; restore it, or start a new sweep" in refused.stderr


def test_a_job_is_not_resumed_with_another_config_than_it_was_trained_with(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/config.yaml").write_text("optimizer: {lr: 0.1}\nseed: 1")
    check_trained_with(tmp_path, OmegaConf.create({"seed": 1, "optimizer": {"lr": 0.1}}))
    with pytest.raises(
        UserError, match=f"optimizer.lr: {tmp_path} was trained with 0.1, but its sweep has 0.2; resume"
    ):
        check_trained_with(tmp_path, OmegaConf.create({"seed": 1, "optimizer": {"lr": 0.2}}))


@pytest.mark.parametrize(
    ("typed", "used"),
    [
        ("seed=1,1,1", "seed=1"),
        ("lr=1e-3,0.001,1e-03,2", "lr=0.001,2"),
        ("seed=9007199254740993,9007199254740992,9007199254740993", "seed=9007199254740993,9007199254740992"),
        ("lr=1,1.0", "lr=1"),
        ("key=true,1,'a',a", "key=True,1,'a'"),
        ("model=choice(a,b,a)", "model=a,b"),
        ("data.orderings=[[1,2],[2,1]],[[1, 2],[2, 1]]", "data.orderings=[[1,2],[2,1]]"),
    ],
)
def test_equal_values_are_used_once(typed, used, capsys):
    (override,) = OverridesParser.create().parse_overrides([typed])
    assert enumerated(override) == used
    assert capsys.readouterr().out == f"{typed}: equal values would train equal jobs, so each is used once\n"


@pytest.mark.parametrize("typed", ["seed=1,2", "key=true,1", "key='1',1", "key=null,a", "seed=range(1,3)"])
def test_different_values_stay_as_they_were_typed(typed, capsys):
    (override,) = OverridesParser.create().parse_overrides([typed])
    assert enumerated(override) == typed
    assert not capsys.readouterr().out


def test_of_a_key_that_is_swept_twice_the_last_values_count(tmp_path):
    seeds = ("seed=1,2", "seed=2,3", "++seed=2,3")
    done = script("train.py", "-m", *tiny_data(tmp_path), *TINY, *seeds, "plan=true", cwd=tmp_path)
    assert [line.split()[:2] for line in done.stdout.splitlines()[:3]] == [["job", "seed"], ["0", "2"], ["1", "3"]]


@pytest.mark.parametrize("values", ["seed=range(1,1)", "model=glob(x*)"])
def test_a_sweep_without_jobs_is_refused(values, tmp_path):
    done = script("train.py", "-m", values, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"{values}: has no values, so there is no job to run; give some.\n")
    assert list(tmp_path.iterdir()) == []


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
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / name).open("a") as file:
            file.write(text)
        record_checksum(tmp_path)
        kept = KeptConfigLoader(loader, tmp_path, "train", is_resumed=True)
        return kept, kept.load_sweep_config(master, [job])

    return compose


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("model/cnn_lstm.yaml", "_target_: pathlib.Path", "model._target_: pathlib.Path may run other code"),
        (
            "data/mnist.yaml",
            "root: ${oc.env:HOME}",
            "data.root: ${oc.env:HOME} may run other code, read the environment",
        ),
        (
            "trainer/logger/tensorboard.yaml",
            "  save_dir: /x",
            "trainer.logger.tensorboard.save_dir: /x may run other code",
        ),
        ("data/mnist.yaml", "root: /theirs\ndataset: KMNIST", "data.root: /theirs is outside the run folder"),
        ("train.yaml", "hydra: {searchpath: [file:///theirs]}", "train.yaml: has a key hydra"),
        ("train.yaml", "hydra: ${new_folder:made}", "train.yaml: has a key hydra"),
    ],
)
def test_a_copy_from_somebody_else_cannot_run_code_or_write_elsewhere(name, text, message, foreign, tmp_path):
    file = tmp_path / name
    keys = tuple(line.partition(":")[0] + ":" for line in text.splitlines())
    if file.exists():
        kept = [line for line in file.read_text().splitlines(keepends=True) if not line.startswith(keys)]
        file.write_text("".join(kept))
    with pytest.raises(UserError, match=re.escape(message)):
        foreign(name, text)


@pytest.mark.parametrize(("content", "message"), [(b"a: [", "YAML of that file."), (b"# \xfc", "is not UTF-8 text")])
def test_a_config_file_that_cannot_be_read_costs_one_line(content, message, tmp_path):
    train, _ = copy_project(tmp_path)
    file = tmp_path / "conf/experiment/broken.yaml"
    file.write_bytes(content)
    done = script(train, "experiment=broken", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert str(file) in done.stderr
    assert message in done.stderr


def test_a_sweep_whose_copy_of_conf_was_edited_is_refused(tmp_path):
    train, words = copy_project(tmp_path)
    done = script(train, "-m", *words, "trainer.max_epochs=1", "seed=1,2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = sweep_folder(tmp_path)
    shutil.rmtree(sweep / "1")
    file = sweep / "conf/train.yaml"
    file.write_text(file.read_text().replace("label_smoothing: 0.0", "label_smoothing: 0.3"))
    done = script(train, "sweep=latest", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "/conf: is not the config that the sweep began with; restore it, or start a new sweep." in done.stderr
    assert not (sweep / "1").exists()


def test_a_file_that_the_copy_has_lost_is_not_taken_from_conf(foreign, tmp_path):
    (tmp_path / "optimizer/adam.yaml").unlink()
    with pytest.raises(MissingConfigException):
        foreign("optimizer/sgd.yaml", "")


def test_the_logging_of_a_copy_from_somebody_else_is_not_used(foreign):
    _, config = foreign("hydra/job_logging/run.yaml", "evil: 1")
    assert "evil" not in config.hydra.job_logging


def test_a_file_beside_the_copy_is_checked_too(foreign, tmp_path):
    (tmp_path / "extra").mkdir()
    (tmp_path.parent / "evil.yaml").write_text(
        "# @package _global_\ntrainer: {callbacks: {e: {_target_: logging.Handler}}}"
    )
    with pytest.raises(
        UserError, match="logging.Handler may run other code, .*; if you trust it, write it into conf/, too."
    ):
        foreign("optimizer/adam.yaml", "", "+extra=../../evil")


def test_a_copy_with_other_values_is_used_as_it_is(foreign, tmp_path):
    file = tmp_path / "optimizer/adam.yaml"
    file.write_text(file.read_text().replace("lr: 0.001", "lr: 0.5"))
    loader, config = foreign("optimizer/adam.yaml", "")
    assert config.optimizer.lr == 0.5
    assert loader.differences == {"optimizer.lr": (0.5, 0.001)}


def test_a_copy_whose_choice_conf_no_longer_has_is_checked_and_used(foreign, tmp_path):
    shutil.copy(ROOT / "conf/model/cnn_lstm.yaml", tmp_path / "model/theirs.yaml")
    loader, config = foreign("model/theirs.yaml", "", "model=theirs")
    assert config.model._target_ == "quadrant_lstm.model.network.CNNLSTM"
    assert loader.differences == {}

"""Tests that resuming a sweep takes nothing from its folder that could execute code or read the environment."""

import re

import pytest
import yaml
from omegaconf import OmegaConf

from quadrant_lstm.cli.arguments import hydra_arguments
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.search import instantiate_within

TOUCH = "{_target_:pathlib.Path.touch}"


def write_sweep(folder, task, hydra, config_dir=None):
    sources = [{"provider": "command-line", "path": config_dir}] if config_dir else []
    overrides = {"task": task, "hydra": hydra}
    content = {"overrides": overrides, "sweeper": {}, "runtime": {"config_sources": sources}}
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": content}))
    return f"sweep={folder}"


@pytest.mark.parametrize(
    ("task", "hydra"),
    [
        (["seed=1,2", f"+hydra.callbacks.evil={TOUCH}"], []),
        (["--config-dir=evil", "experiment=evil"], []),
        (["model.dropout=${oc.env:HOME}"], []),
        ([], ["hydra.launcher.setup=[touch file]"]),
        ([], ['hydra.launcher.n_jobs={a: "\\n", _target_: pathlib.Path.touch}']),
        ([], ["hydra.launcher.n_jobs=${oc.env:HOME}"]),
        ([], ["hydra/launcher=../evil"]),
        ([], ["hydra.sweeper._recursive_=true", "hydra.sweeper.sampler._target_=evil.Sampler"]),
        (["seed=1,2", "experiment=../../evil"], []),
        (["seed=1,2", "+model/encoder=../../../evil"], []),
        (["seed=1,2", "model@other=../../evil"], []),
        (["seed=1,2", "+extra=../../evil"], []),
    ],
)
def test_what_could_execute_code_has_to_be_typed_again(task, hydra, tmp_path):
    with pytest.raises(UserError, match=f"sweep: {tmp_path} was started with .*; add it if you trust what it does."):
        hydra_arguments([write_sweep(tmp_path, task, hydra)])


@pytest.mark.parametrize(
    ("task", "written"),
    [
        (["seed=1,2", "trainer.logger.tensorboard.save_dir=docs"], "trainer.logger.tensorboard.save_dir=docs"),
        (["seed=1,2", "+trainer.callbacks.other={dirpath: /theirs}"], "+trainer.callbacks.other={dirpath: /theirs}"),
        (["trainer.logger.tensorboard.save_dir=/a,/b"], "trainer.logger.tensorboard.save_dir=/a,/b"),
        (["data=kmnist", "seed=1,2", "data.root=/theirs"], "data.root=/theirs"),
        (["++data.dataset=FashionMNIST", "data.root=/theirs"], "data.root=/theirs"),
        (["data.root=/theirs", "trainer.logger.csv.name=${data.root}"], "trainer.logger.csv.name=${data.root}"),
        (["+trainer.logger.wandb.offline=false"], "+trainer.logger.wandb.offline=false"),
    ],
)
def test_a_path_that_jobs_would_write_to_has_to_be_typed_again(task, written, tmp_path):
    folder = write_sweep(tmp_path, task, [])
    with pytest.raises(UserError, match=re.escape(f"was started with {written!r}; add it if you trust what it does.")):
        hydra_arguments([folder])
    assert written in hydra_arguments([folder, written])


def test_a_folder_that_is_only_read_need_not_be_typed_again(tmp_path):
    clips = ["data=clips", "data.root=/clips", "seed=1,2"]
    assert "data.root=/clips" in hydra_arguments([write_sweep(tmp_path, clips, [])])


@pytest.mark.parametrize("part", ["sweeper", "overrides", "runtime"])
def test_the_config_of_a_sweep_resolves_no_interpolation(part, tmp_path):
    folder = write_sweep(tmp_path, ["seed=1,2"], [])
    file = tmp_path / "multirun.yaml"
    content = yaml.safe_load(file.read_text())
    content["hydra"][part] = "${new_folder:" + str(tmp_path / "made") + "}"
    content["hydra"]["sweeper"] = {"n_trials": content["hydra"][part]} if part == "sweeper" else {}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="multirun.yaml: is not the config of a sweep; restore it."):
        hydra_arguments([folder])
    assert not (tmp_path / "made").exists()


def test_plain_values_are_taken_from_the_folder(tmp_path):
    hydra = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra/sweeper=optuna"]
    resumed = hydra_arguments([write_sweep(tmp_path, ["seed=1,2", "model.lstm_units=${model.dense_units}"], hydra)])
    assert resumed == [
        "-m",
        "seed=1,2",
        "model.lstm_units=${model.dense_units}",
        *hydra,
        f"hydra.sweep.dir='{tmp_path}'",
    ]


def test_what_is_typed_again_is_accepted(tmp_path):
    setup = "hydra.launcher.setup=[module load cuda]"
    assert setup in hydra_arguments([write_sweep(tmp_path, ["seed=1,2"], [setup]), setup])


def test_a_sweep_over_an_own_class_resumes_with_the_class_typed_again(tmp_path):
    started = hydra_arguments(["-m", "model._target_=mine.Net", "model.units=16,32"])
    sweep = write_sweep(tmp_path, started[1:], [])
    with pytest.raises(UserError, match=r"started with .*mine.Net'; add it if you trust what it does"):
        hydra_arguments([sweep])
    assert hydra_arguments([sweep, "model._target_=mine.Net"])[: len(started)] == started
    with pytest.raises(UserError, match=r"not model.units=16; leave it out, or start a new sweep"):
        hydra_arguments([sweep, "model.units=16"])


def test_a_sweep_with_a_config_dir_needs_it_typed(tmp_path):
    sweep = write_sweep(tmp_path, ["seed=1,2"], [], config_dir="/theirs")
    with pytest.raises(UserError, match="was started with --config-dir=/theirs; add it if you trust that folder."):
        hydra_arguments([sweep])
    assert "--config-dir=mine" in hydra_arguments([sweep, "--config-dir=mine"])


@pytest.mark.parametrize("target", ["pathlib.Path.touch", "optuna.pruners.os.system", "optuna.pruners.logging.Logger"])
def test_a_nested_class_of_a_pruner_is_checked(target):
    inner = {"_target_": target}
    pruner = OmegaConf.create({"_target_": "optuna.pruners.PatientPruner", "patience": 1, "wrapped_pruner": inner})
    with pytest.raises(UserError, match=f"hydra.sweeper.pruner: {target} is not in optuna.pruners"):
        instantiate_within("optuna.pruners.", "hydra.sweeper.pruner", pruner)


@pytest.mark.parametrize("text", ["hydra: 5", "- 1", "a: 1", "hydra: {overrides: 5}"])
def test_a_file_that_is_no_sweep_is_named(text, tmp_path):
    (tmp_path / "multirun.yaml").write_text(text)
    with pytest.raises(UserError, match=f"{tmp_path}/multirun.yaml: is not the config of a sweep; restore it."):
        hydra_arguments([f"sweep={tmp_path}"])

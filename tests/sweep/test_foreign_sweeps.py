"""Tests that resuming a sweep takes nothing from its folder that could execute code or read the environment."""

import re

import pytest
import yaml
from omegaconf import OmegaConf

from quadrant_lstm.cli.arguments import hydra_arguments
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.search import instantiate_within


def write_sweep(folder, *task, hydra=(), config_dir=None):
    sources = [{"provider": "command-line", "path": config_dir}] if config_dir else []
    content = {"overrides": {"task": [*task], "hydra": [*hydra]}, "sweeper": {}, "runtime": {"config_sources": sources}}
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": content}))
    return f"sweep={folder}"


@pytest.mark.parametrize(
    "override",
    [
        # may execute code, or read more than the config
        "+hydra.callbacks.evil={_target_:pathlib.Path.touch}",
        "--config-dir=evil",
        "model.dropout=${oc.env:HOME}",
        "experiment=../../evil",
        "+model/encoder=../../../evil",
        "model@other=../../evil",
        "+extra=../../evil",
        # may write elsewhere
        "trainer.logger.tensorboard.save_dir=docs",
        "+trainer.callbacks.other={dirpath: /theirs}",
        "trainer.logger.tensorboard.name=a,/b",
        "data.root=/theirs",
        "trainer.logger.csv.name=${data.root}",
        "+trainer.logger.wandb.offline=false",
    ],
)
def test_what_could_do_harm_has_to_be_typed_again(override, tmp_path):
    folder = write_sweep(tmp_path, "data=kmnist", "seed=1,2", override)
    with pytest.raises(UserError, match=re.escape(f"was started with {override!r}; add it if you trust what it does.")):
        hydra_arguments([folder])
    if not override.startswith("--"):
        assert override in hydra_arguments([folder, override])


@pytest.mark.parametrize(
    "override",
    [
        "hydra.launcher.setup=[touch file]",
        'hydra.launcher.n_jobs={a: "\\n", _target_: pathlib.Path.touch}',
        "hydra.launcher.n_jobs=${oc.env:HOME}",
        "hydra/launcher=../evil",
        "hydra.sweeper._recursive_=true",
    ],
)
def test_hydras_own_overrides_may_hold_plain_values_only(override, tmp_path):
    with pytest.raises(UserError, match="; add it if you trust what it does."):
        hydra_arguments([write_sweep(tmp_path, hydra=[override])])
    assert override in hydra_arguments([write_sweep(tmp_path, hydra=[override]), override])


def test_plain_values_and_folders_that_are_only_read_are_taken_from_the_folder(tmp_path):
    hydra = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra/sweeper=optuna"]
    task = ["data=clips", "data.root=/clips", "seed=1,2", "model.lstm_units=${model.dense_units}"]
    resumed = hydra_arguments([write_sweep(tmp_path, *task, hydra=hydra)])
    assert resumed == ["-m", *task, *hydra, f"hydra.sweep.dir='{tmp_path}'"]


@pytest.mark.parametrize("part", ["sweeper", "overrides", "runtime"])
def test_the_config_of_a_sweep_resolves_no_interpolation(part, tmp_path):
    folder = write_sweep(tmp_path, "seed=1,2")
    file = tmp_path / "multirun.yaml"
    content = yaml.safe_load(file.read_text())
    content["hydra"][part] = "${new_folder:" + str(tmp_path / "made") + "}"
    content["hydra"]["sweeper"] = {"n_trials": content["hydra"][part]} if part == "sweeper" else {}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="multirun.yaml: is not the config of a sweep; restore it."):
        hydra_arguments([folder])
    assert not (tmp_path / "made").exists()


def test_a_sweep_over_an_own_class_resumes_with_the_class_typed_again(tmp_path):
    started = hydra_arguments(["-m", "model._target_=mine.Net", "model.units=16,32"])
    sweep = write_sweep(tmp_path, *started[1:])
    with pytest.raises(UserError, match=r"started with .*mine.Net'; add it if you trust what it does"):
        hydra_arguments([sweep])
    assert hydra_arguments([sweep, "model._target_=mine.Net"])[: len(started)] == started
    with pytest.raises(UserError, match=r"not model.units=16; leave that out, or start a new sweep"):
        hydra_arguments([sweep, "model.units=16"])


def test_a_sweep_with_a_config_dir_needs_it_typed(tmp_path):
    sweep = write_sweep(tmp_path, "seed=1,2", config_dir="/theirs")
    with pytest.raises(UserError, match="was started with --config-dir=/theirs; add it if you trust it."):
        hydra_arguments([sweep])
    assert "--config-dir=mine" in hydra_arguments([sweep, "--config-dir=mine"])


@pytest.mark.parametrize("target", ["pathlib.Path.touch", "optuna.pruners.os.system", "optuna.pruners.logging.Logger"])
def test_a_nested_class_of_a_pruner_is_checked(target):
    pruner = {"_target_": "optuna.pruners.PatientPruner", "patience": 1, "wrapped_pruner": {"_target_": target}}
    with pytest.raises(UserError, match=f"hydra.sweeper.pruner: {target} is not in optuna.pruners"):
        instantiate_within("optuna.pruners.", "hydra.sweeper.pruner", OmegaConf.create(pruner))


@pytest.mark.parametrize("text", ["hydra: 5", "- 1", "hydra: {overrides: 5}"])
def test_a_file_that_is_no_sweep_is_named(text, tmp_path):
    (tmp_path / "multirun.yaml").write_text(text)
    with pytest.raises(UserError, match=f"{tmp_path}/multirun.yaml: is not the config of a sweep; restore it."):
        hydra_arguments([f"sweep={tmp_path}"])

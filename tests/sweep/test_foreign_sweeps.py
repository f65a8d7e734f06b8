"""Tests that resuming a sweep takes nothing from its folder that could execute code or read the environment."""

import re

import pytest
import yaml

from quadrant_lstm.cli.arguments import hydra_arguments
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.search import instantiate_within
from quadrant_lstm.sweep.sweep_folder import Sweep


def write_sweep(folder, *overrides, config_dir=None, sweeper=None):
    sources = [{"provider": "command-line", "path": config_dir}] if config_dir else []
    lists = {"task": [], "hydra": []}
    for override in overrides:
        lists["hydra" if re.match(r"\+?hydra[./](?!callbacks)", override) else "task"].append(override)
    content = {"overrides": lists, "sweeper": sweeper or {}, "runtime": {"config_sources": sources}}
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": content}))
    return f"sweep={folder}"


@pytest.mark.parametrize(
    "override",
    [
        # may execute code, or read more than the config
        "+hydra.callbacks.evil={_target_:pathlib.Path.touch}",
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
        # Hydra's own may hold plain values only
        "hydra.launcher.setup=[touch file]",
        'hydra.launcher.n_jobs={a: "\\n", _target_: pathlib.Path.touch}',
        "hydra.launcher.n_jobs=${oc.env:HOME}",
        "hydra/launcher=../evil",
        "hydra.sweeper._recursive_=true",
    ],
)
def test_what_could_do_harm_has_to_be_typed_again(override, tmp_path):
    folder = write_sweep(tmp_path, "data=kmnist", "seed=1,2", override)
    line = f"{tmp_path} was started with {override!r}; add it if you trust wha"
    with pytest.raises(UserError, match=re.escape(line)):
        hydra_arguments([folder])
    assert override in hydra_arguments([folder, override])


def test_an_added_key_of_the_launcher_is_not_lost(tmp_path):
    override = "+hydra.launcher.additional_parameters.comment=mine"
    folder = write_sweep(tmp_path, "seed=1,2", override)
    with pytest.raises(UserError, match="add it if you trust what it does"):
        hydra_arguments([folder])
    for typed in (override, override.removeprefix("+")):
        words = hydra_arguments([folder, typed])
        assert [word for word in words if "comment" in word] == [typed]


def test_an_option_among_the_overrides_is_refused(tmp_path):
    with pytest.raises(UserError, match="was started with '--config-dir=evil'; add it if you trust what it does."):
        hydra_arguments([write_sweep(tmp_path, "seed=1,2", "--config-dir=evil")])


def test_plain_values_and_folders_that_are_only_read_are_taken_from_the_folder(tmp_path):
    task = ["data=clips", "data.root=/clips", "seed=1,2", "model.lstm_units=${model.dense_units}"]
    hydra = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra/sweeper=optuna"]
    resumed = hydra_arguments([write_sweep(tmp_path, *task, *hydra)])
    assert resumed == ["-m", *task, *hydra, f"hydra.sweep.dir='{tmp_path}'"]


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
        instantiate_within("optuna.pruners.", "hydra.sweeper.pruner", pruner)


EVIL = "${new_folder:made}"  # an interpolation with an effect


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *((part, value) for part in ("overrides", "runtime", "sweeper") for value in (EVIL, 5, None)),
        ("sweeper", {"n_trials": EVIL}),
        ("runtime", {"config_sources": [{"path": "/x"}]}),
        ("job", "text"),
    ],
)
def test_a_config_that_is_none_of_a_sweep_is_named_and_nothing_in_it_is_resolved(part, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, file = write_sweep(tmp_path, "seed=1,2", sweeper={"n_trials": 5}), tmp_path / "multirun.yaml"
    assert Sweep(tmp_path).is_search
    content = yaml.safe_load(file.read_text())
    content["hydra"][part] = value
    for text in (yaml.safe_dump(content), "- 1", "hydra: 5"):
        file.write_text(text)
        with pytest.raises(UserError, match=f"{file}: is not the config of a sweep; restore it."):
            hydra_arguments([folder])
    assert not (tmp_path / "made").exists()

"""Tests that the schema has the same keys as conf/ and the constructors."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from quadrant_lstm.config.schema import CLASSES, LIBRARIES
from tests.scripts import ROOT

GIVEN_BY_CODE = {
    "frame_shape", "num_classes", "orderings", "grid", "in_channels", "input_size", "num_units", "num_steps",
    "hidden_channels"
}  # fmt: skip


@pytest.mark.parametrize("target", CLASSES)
def test_each_class_takes_the_arguments_of_the_schema(target):
    given = GIVEN_BY_CODE if target.startswith("quadrant_lstm.model.") else set()
    takes = set(inspect.signature(get_class(target)).parameters) - {"options"} - given
    assert takes == set(CLASSES[target]) - {"**"}


def nodes(file: Path):
    config = OmegaConf.to_container(OmegaConf.load(file))
    config.pop("defaults", None)
    return {key: value for key, value in config.items() if not key.startswith("_")}


@pytest.mark.parametrize("group", LIBRARIES)
def test_each_key_of_conf_is_in_the_schema(group):
    files = list((ROOT / "conf" / group).glob("*.yaml"))
    assert files
    assert {key for file in files for key in nodes(file)} <= set(LIBRARIES[group])

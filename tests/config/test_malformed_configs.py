"""Tests that the config of a run from somebody else cannot run code, or use up memory; each message names the cause."""

import re
import shutil

import pytest

from quadrant_lstm.errors import UserError
from quadrant_lstm.run.load import load_run
from tests.malformed import MALFORMED


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_config_is_refused(name, finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change, message = MALFORMED[name]
    shutil.copytree(finished_run, tmp_path / "run")
    change(tmp_path / "run/.hydra/config.yaml")
    with pytest.raises(UserError, match=re.escape(message)):
        load_run("run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # "executed" is what the code of a config would make

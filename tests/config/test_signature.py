import inspect
import subprocess
import sys

import lightning.pytorch
import pytest
import torch

from quadrant_lstm.config.signature import signature
from quadrant_lstm.kinds import Count, Counts


@pytest.mark.parametrize(
    ("target", "real"),
    [
        ("torch.optim.Adam", torch.optim.Adam),
        ("lightning.pytorch.Trainer", lightning.pytorch.Trainer),
        ("lightning.pytorch.callbacks.ModelCheckpoint", lightning.pytorch.callbacks.ModelCheckpoint),
    ],
)
def test_what_is_read_from_the_source_is_what_python_says(target, real):
    assert list(signature(target)) == list(inspect.signature(real).parameters)


def test_our_own_kinds_are_found():
    kinds = signature("quadrant_lstm.model.network.CNNLSTM")
    assert kinds["filters"] == (Counts, True)
    assert kinds["lstm_units"] == (Count, True)


def test_a_default_makes_a_parameter_optional():
    assert not signature("torch.optim.Adam")["lr"].required
    assert signature("torch.optim.Adam")["params"].required


def test_a_class_without_init_takes_what_its_base_takes():
    assert signature("quadrant_lstm.dashboard.dashboard.Dashboard") == {}


def test_any_keyword_is_marked():
    assert "**" in signature("lightning.pytorch.strategies.DDPStrategy")


@pytest.mark.parametrize(
    "target", ["torch.optim.Adamm", "torch.optim.Adam.step", "torch.no.Adam", "nowhere.Class", "Class", ""]
)
def test_what_is_not_there_is_a_lookup_error(target):
    with pytest.raises(LookupError):
        signature(target)


def test_nothing_is_imported():
    code = (
        "import sys; from quadrant_lstm.config.signature import signature;"
        "signature('torch.optim.Adam'), signature('lightning.pytorch.Trainer');"
        "sys.exit(bool({'torch', 'lightning'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

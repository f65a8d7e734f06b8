import re

import pytest

from quadrant_lstm.config.check import check_config, find_class
from quadrant_lstm.config.trust import check_trust
from quadrant_lstm.errors import UserError
from quadrant_lstm.text import with_own_network
from tests.configs import composed_config

FILES = {"own_syntax": "x = 1\nclass Net(:\n", "own_import": "\nimport nowhere_to_be_found\n"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("qqqq.Net", "No module named 'qqqq'; correct the name, or put its file beside the script or into a f"),
        ("Net", "Net cannot be imported: Empty module name; correct the name, or put its file beside"),
        ("own_syntax.Net", "own_syntax.Net cannot be imported: FOLDER/own_syntax.py, line 2: SyntaxError: "),
        ("own_import.Net", "FOLDER/own_import.py, line 2: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    ],
)
def test_a_class_that_cannot_be_imported_is_explained(target, message, tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=re.escape(message.replace("FOLDER", str(tmp_path)))):
        find_class("model", target)


NETWORK = """
from typing import Annotated, Literal
from annotated_types import Ge
from torch import nn

class Net(nn.Sequential):
    def __init__(
        self, frame_shape, num_steps, num_classes, units: Annotated[int, Ge(2), "a whole number of at least 2"],
        activation: Literal["ReLU", "Tanh"] = "ReLU",
    ):
        channels, height, width = frame_shape
        inputs = nn.Linear(num_steps * channels * height * width, units)
        super().__init__(nn.Flatten(), inputs, getattr(nn, activation)(), nn.Linear(units, num_classes))
"""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("model.units=1", "model.units: 1 is not a whole number of at least 2; choose another value."),
        (
            "model.units=3 model.activation=GELU",
            "model.activation: 'GELU' is not one of ReLU, Tanh; choose another value.",
        ),
        ("model.activation=Tanh", "model.units: is missing; add model.units=VALUE, or leave out "),
    ],
)
def test_the_annotation_of_an_argument_is_its_declaration(words, line, tmp_path, monkeypatch):
    (tmp_path / "own_layers.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    cfg = composed_config(*with_own_network(["model._target_=own_layers.Net", *words.split()]))
    with pytest.raises(UserError, match=re.escape(line)):
        check_config(cfg)


@pytest.mark.parametrize(
    ("trust", "remedy"),
    [
        ([], "model.encoder._target_: a.Encoder is other code; add trust=[a,b.c] if you trust it."),
        (["a.Encoder"], "model.encoder._target_: a.Encoder is other code; add trust=[a,b.c] if you trust it."),
        (["a", "nowhere"], "model.recurrent._target_: b.c.Layer is other code; add trust=[a,b.c] if you trust it."),
    ],
)
def test_all_modules_to_trust_are_named(trust, remedy):
    parts = {"encoder": {"_target_": "a.Encoder"}, "recurrent": {"_target_": "b.c.Layer"}}
    config = {"model": {"_target_": "quadrant_lstm.model.network.Join", **parts}}
    with pytest.raises(UserError, match=re.escape(remedy)):
        check_trust(config, trust)
    check_trust(config, ["a", "b"])

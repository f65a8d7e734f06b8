import re

import pytest

from quadrant_lstm.config.check import find_class
from quadrant_lstm.config.trust import check_trust
from quadrant_lstm.errors import UserError
from tests.folders import TINY, tiny_data
from tests.scripts import Script, importing_from

FILES = {
    "own_classes": "class Net: pass\ndef make(): pass\n",
    "own_syntax": "x = 1\nclass Net(:\n",
    "own_import": "\nimport nowhere_to_be_found\n",
    "own_error": "\n\nraise ValueError('no data')\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("own_classes.Nett", "model: there is no class own_classes.Nett; did you mean own_classes.Net?"),
        ("own_classes.net", "model: there is no class own_classes.net; did you mean own_classes.Net?"),
        ("own_classes.Other", "model: there is no class own_classes.Other; correct the name."),
        ("own_clases.Net", "(No module named 'own_clases'); did you mean own_classes.Net?"),
        ("own_classes.py.Net", "'own_classes' is not a package); did you mean own_classes.Net?"),
        (
            "qqqq.Net",
            "(No module named 'qqqq'); put its file beside the script or into a folder of PYTHONPATH, or corr",
        ),
        ("Net", "model: Net names no module; write MODULE.CLASS, and put its file beside the script or into a folder"),
        ("own_classes.make", "model: own_classes.make is not a class; name one."),
        ("own_syntax.Net", "model: own_syntax.Net cannot be imported: FOLDER/own_syntax.py, line 2: SyntaxError: "),
        ("own_import.Net", "FOLDER/own_import.py, line 2: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("own_error.Net", "FOLDER/own_error.py, line 3: ValueError: no data"),
    ],
)
def test_a_class_that_cannot_be_imported_is_explained(target, message, folder):
    with pytest.raises(UserError, match=re.escape(message.replace("FOLDER", str(folder)))):
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


def test_the_annotation_of_an_argument_is_its_declaration(tmp_path):
    (tmp_path / "layers_of_mine.py").write_text(NETWORK)
    before = importing_from(tmp_path)
    words = (*tiny_data(tmp_path), *TINY[:3], "trainer.max_epochs=1", "model._target_=layers_of_mine.Net")
    for option, line in {
        "model.units=1": "model.units: 1 is not a whole number of at least 2; write model.units=VALUE.\n",
        "model.unit=3": "model.unit: there is no such key; did you mean model.units?\n",
        "model.units=3 model.activation=GELU": "model.activation: 'GELU' is not one of ReLU, Tanh; write model.activa",
        "model.activation=Tanh": "model.units: is missing; add model.units=VALUE.\n",
    }.items():
        done = Script("train.py", *words, *option.split(), cwd=tmp_path, before=before).wait()
        assert done.returncode == 2
        assert line in done.stderr
    assert Script("train.py", *words, "model.units=3", cwd=tmp_path, before=before).wait().returncode == 0
    resumed = ("run=latest", "trust=layers_of_mine", "trainer.max_epochs=2")
    done = Script("train.py", *resumed, cwd=tmp_path, before=before).wait()
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stdout


@pytest.mark.parametrize(
    ("trust", "remedy"),
    [
        ([], "model.encoder._target_: a.Encoder is other code; add trust=[a,b.c] if you trust it."),
        (["a.Encoder"], "model.encoder._target_: a.Encoder is other code; write trust=[a,b.c] if you trust it."),
        (["Encoder"], "write trust=[a,b.c] if you trust it."),
        (["a", "nowhere"], "model.recurrent._target_: b.c.Layer is other code; write trust=[a,b.c] if you trust it."),
    ],
)
def test_all_modules_to_trust_are_named(trust, remedy):
    parts = {"encoder": {"_target_": "a.Encoder"}, "recurrent": {"_target_": "b.c.Layer"}}
    config = {"model": {"_target_": "quadrant_lstm.model.network.Join", **parts}}
    with pytest.raises(UserError, match=re.escape(remedy)):
        check_trust(config, trust)
    check_trust(config, ["a", "b"])

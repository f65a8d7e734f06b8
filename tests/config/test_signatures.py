import re

import pytest
from omegaconf import OmegaConf

from quadrant_lstm.config.check_classes import check_trust
from quadrant_lstm.config.signatures import check_signatures, find_class
from quadrant_lstm.errors import UserError

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


def test_a_group_is_checked_alone(folder):
    cfg = OmegaConf.create({"model": {"_target_": "own_classes.Net"}, "trainer": {"_target_": "own_classes.Nett"}})
    check_signatures(cfg, "model")
    with pytest.raises(UserError, match="trainer._target_: there is no class own_classes.Nett"):
        check_signatures(cfg)


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

"""README and docs: links lead somewhere, and commands are accepted."""

import re
import shlex
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from quadrant_lstm.config.signatures import check_signatures

from quadrant_lstm.config.check import check_without_torch, without_hydra
from quadrant_lstm.errors import UserError
from tests.clips import noise_clip, write_folder
from tests.scripts import ROOT
from tests.sections import sections

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
RESUMES = ("run=", "sweep=", "plan=")  # read before Hydra composes the config
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def commands(page: Path) -> list[str]:
    """In indented code, and between backticks; && joins two."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    code = re.findall(r"^ {4}(.+)$|`([^`]+)`", text, re.MULTILINE)
    parts = [part.strip() for pair in code for part in "".join(pair).split("&&")]
    return [part for part in parts if part.startswith(("python ", "tensorboard "))]


ALL = sorted({command for page in PAGES for command in commands(page)})
OWN = ("--config-dir", "my_network")  # tests/docs/test_your_network.py types these
OF_TRAIN = [
    command for command in ALL if command.startswith("python train.py") and not any(own in command for own in OWN)
]
OF_OTHERS = [command for command in ALL if not command.startswith("python train.py")]


@pytest.fixture(scope="session")
def folders_of_clips(tmp_path_factory):
    """Those that the commands name."""
    cwd = tmp_path_factory.mktemp("clips")
    for place in ("one", "other"):
        for root in ("FOLDER", "ucf101"):
            for number in range(2):
                write_folder(cwd / root / place / str(number), noise_clip(2))
    return cwd


@pytest.fixture
def as_train_py(monkeypatch, folders_of_clips):
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py")])
    monkeypatch.chdir(folders_of_clips)


def check_command(command: str) -> int:
    """Checks the configs of a command, of a sweep the first and the last, and returns their number."""
    words = shlex.split(command)[2:]
    is_sweep = "-m" in words
    words = [word for word in words if word.startswith("~") or ("=" in word and not word.startswith(RESUMES))]
    overrides = OverridesParser.create().parse_overrides(words)
    singles = [one.input_line for one in overrides if not one.is_sweep_override()]
    swept = [one for one in overrides if one.is_sweep_override()]
    (combinations,) = BasicSweeper.split_arguments(swept, None)
    checked = combinations[:: max(1, len(combinations) - 1)]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for combination in checked:
            cfg = compose("train", [*singles, *combination], return_hydra_config=True)
            OmegaConf.set_struct(cfg, False)
            assert is_sweep or not (swept or cfg.hydra.sweeper.params)
            check_without_torch(own := without_hydra(cfg))
            check_signatures(own)
    return len(checked)


@pytest.mark.parametrize("command", OF_TRAIN)
def test_a_command_of_train_is_accepted(command, as_train_py):
    assert check_command(command) >= 1


def test_a_wrong_command_would_be_noticed(as_train_py):
    with pytest.raises(UserError, match="model.lstm_units"):
        check_command("python train.py model.lstm_units=many")
    with pytest.raises(UserError, match="trainer.acumulate_grad_batches: there is no such key"):
        check_command("python train.py +trainer.acumulate_grad_batches=2")
    with pytest.raises(AssertionError):
        check_command("python train.py experiment=units")


def test_an_experiment_that_is_a_sweep_is_mentioned():
    sweeps = {file.stem for file in ROOT.glob("conf/experiment/*.yaml") if "sweeper" in file.read_text()}
    (row,) = re.findall(r"^\| `experiment` .*$", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    assert sweeps <= set(re.findall(r"`(\w+)`", row))
    assert sweeps <= set(re.findall(r"\w+", (ROOT / "conf/hydra/help/train.yaml").read_text()))


@pytest.mark.parametrize("command", OF_OTHERS)
def test_another_command_names_what_is_there(command):
    program, *words = shlex.split(command)
    if program == "tensorboard":
        assert words == ["--logdir", "outputs"]
    elif words[:3] == ["-m", "pip", "install"]:
        assert set(re.findall(r"\w+", words[-1].partition("[")[2])) <= EXTRAS
    elif words[0] == "-m":
        assert find_spec(words[1])
    else:
        assert (ROOT / words[0]).is_file()
        config = OmegaConf.load(ROOT / "conf/readers" / f"{Path(words[0]).stem}.yaml") if "/" not in words[0] else {}
        keys = [word.partition("=")[0] for word in words[1:] if "=" in word]
        assert all(key in (*config, "run", "trust") for key in keys)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_headings(page):
    for file, place in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
        assert place in sections(page.parent / file if file else page)


def test_the_readme_takes_five_minutes():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 180
    packages = {file.parent.name for file in ROOT.glob("src/quadrant_lstm/*/__init__.py")}
    assert packages <= {word.rstrip("/").rpartition("/")[2] for line in lines for word in line.split()[:1]}

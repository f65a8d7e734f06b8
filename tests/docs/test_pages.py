"""README and docs: links lead somewhere, and commands are accepted."""

import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from docs.figures import __main__ as figures
from quadrant_lstm.compat import OF_COMPOSE
from quadrant_lstm.config.check import check_config
from quadrant_lstm.config.values import without_hydra
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.sweep_folder import combinations
from tests.clips import noise_clip, write_folder
from tests.scripts import ROOT

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
RESUMES = ("run=", "sweep=", "plan=")  # read before Hydra composes the config
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def commands(page: Path) -> list[str]:
    """In indented code, and between backticks; && joins two."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    code = re.findall(r"^ {4}(.+)$|`([^`]+)`", text, re.MULTILINE)
    parts = [" ".join(part.split()) for pair in code for part in "".join(pair).split("&&")]
    return [part for part in parts if part.startswith(("python ", "tensorboard "))]


ALL = sorted({command for page in PAGES for command in commands(page)})
OF_TRAIN = [command for command in ALL if command.startswith("python train.py")]
OWN = ("--config-dir", "my_network")  # test_your_network.py and test_sweeps_page.py run these


@pytest.fixture
def folders_of_clips(tmp_path, monkeypatch):
    """Works in a folder with those that the commands name."""
    for place in ("FOLDER/one/0", "FOLDER/one/1", "FOLDER/other/0", "FOLDER/other/1"):
        write_folder(tmp_path / place, noise_clip(2))
    monkeypatch.chdir(tmp_path)


def check_command(command: str) -> None:
    """Checks the config of a command, or those of a sweep's first and last job."""
    words = shlex.split(command)[2:]
    is_sweep = "-m" in words
    words = [word for word in words if word.startswith("~") or ("=" in word and not word.startswith(RESUMES))]
    jobs = combinations(OverridesParser.create().parse_overrides(words))
    with initialize_config_dir(str(ROOT / "conf"), **OF_COMPOSE):
        for job in jobs[:: max(1, len(jobs) - 1)]:
            cfg = compose("train", job, return_hydra_config=True)
            OmegaConf.set_struct(cfg, False)
            assert is_sweep or (len(jobs) == 1 and not cfg.hydra.sweeper.params)
            check_config(without_hydra(cfg))


@pytest.mark.parametrize("command", [command for command in OF_TRAIN if not any(own in command for own in OWN)])
def test_a_command_of_train_is_accepted(command, folders_of_clips):
    check_command(command)


def test_a_wrong_command_would_be_noticed(folders_of_clips):
    with pytest.raises(UserError, match="model.lstm_units"):
        check_command("python train.py model.lstm_units=many")
    with pytest.raises(UserError, match="trainer.acumulate_grad_batches: there is no such key"):
        check_command("python train.py +trainer.acumulate_grad_batches=2")
    with pytest.raises(AssertionError):
        check_command("python train.py experiment=units")


@pytest.mark.parametrize("command", sorted(set(ALL) - set(OF_TRAIN)))
def test_another_command_names_what_is_there(command):
    program, *words = shlex.split(command)
    if program == "tensorboard":
        assert words == ["--logdir", "outputs"]
    elif words[:3] == ["-m", "pip", "install"]:
        assert set(re.findall(r"\w+", words[-1].partition("[")[2])) <= EXTRAS
    elif words[:2] == ["-m", "docs.figures"]:
        assert f"python -m docs.figures {words[2]} " in figures.__doc__
    elif words[0] == "-m":
        assert find_spec(words[1])
    elif words[0].startswith("examples/"):
        assert (ROOT / words[0]).is_file()
    else:
        config = OmegaConf.load(ROOT / "conf_readers" / f"{Path(words[0]).stem}.yaml")
        assert (ROOT / words[0]).is_file()
        assert {word.partition("=")[0] for word in words[1:] if "=" in word} <= {*config, "run", "trust"}


def headings(page: Path) -> set[str]:
    """Returns the names of a page's headings in links on GitHub."""
    titles = re.findall(r"^##+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for file, _, place in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]+))?\)", page.read_text()):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not place or place in headings(target), place

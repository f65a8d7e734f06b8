import logging
import logging.config

from omegaconf import OmegaConf

from quadrant_lstm.errors import UserError
from quadrant_lstm.text import say
from tests.scripts import ROOT

RED = "\033[31m"


def test_a_mistake_is_one_line_whatever_a_library_reports():
    assert str(UserError("data.root: cannot be read (in line 3\n    model: [\n\tit ends); correct it.\n")) == (
        "data.root: cannot be read (in line 3 model: [ it ends); correct it."
    )


def test_a_mistake_steers_no_terminal():
    assert str(UserError(f"{RED}a\u202eb\udcff.png: cannot be read")) == r"?[31ma?b\xff.png: cannot be read"


def test_what_is_printed_steers_no_terminal(capsys):
    say(f"two{RED}\nlines\r")
    assert capsys.readouterr().out == "two?[31m\nlines?\n"


def test_the_log_of_a_run_steers_no_terminal():
    formatters = OmegaConf.load(ROOT / "conf/hydra/job_logging/run.yaml").formatters
    formatter = logging.config.DictConfigurator({}).configure_formatter(OmegaConf.to_container(formatters.dated))
    line = formatter.format(logging.LogRecord("x", logging.INFO, "x.py", 1, f"class {RED}, ü", (), None))
    assert line.endswith(" INFO class ?[31m, ü")

"""Runs a root script like `python train.py ...`, in a process that starts within a tenth of a second.

A fresh process needs three to five seconds to import torch and Lightning, more than most tests take. These processes
are forked from one that has only imported them and composed a config. tests/cli/test_command.py uses fresh processes.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests.folders import TINY, run_folder, tiny_data

ROOT = Path(__file__).parent.parent
IMPORTED = [
    "quadrant_lstm.run.train", "quadrant_lstm.run.load", "quadrant_lstm.run.predict", "quadrant_lstm.sweep.search",
    "matplotlib.pyplot", "torch.utils.tensorboard", "tests.scripts", "tests.composed",
]  # fmt: skip

FORKSERVER: Any = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(IMPORTED)


class Script:
    """A running script. `returncode` is None until it has ended."""

    def __init__(self, *arguments: object, cwd: Path, environment: dict[str, str] | None = None, before: str = ""):
        self.outputs = [tempfile.NamedTemporaryFile("r") for _ in range(2)]  # noqa: SIM115
        self.cwd = cwd
        environment = os.environ | (environment or {})
        files = [output.name for output in self.outputs]
        self.process = FORKSERVER.Process(
            target=run, args=(list(map(str, arguments)), str(cwd), environment, files, before)
        )
        self.process.start()
        self.pid: int = self.process.pid
        weakref.finalize(self, self.process.kill)  # a failed test leaves no process
        for output in self.outputs:
            weakref.finalize(self, output.close)

    def resident_megabytes(self) -> float:
        """Returns the memory that the process occupies now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def stdout(self) -> str:
        return Path(self.outputs[0].name).read_text()

    @property
    def stderr(self) -> str:
        return Path(self.outputs[1].name).read_text()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def lines(self) -> Iterator[str]:
        """Yields the lines of stdout as they are printed."""
        line, ended = "", False
        while line or not ended:
            ended = self.returncode is not None  # before the last lines are read
            line += self.outputs[0].readline()
            if line.endswith("\n") or (ended and line):
                yield line
                line, ended = "", False
            elif not ended:
                time.sleep(0.02)

    def wait_for(self, pattern: str, count: int = 1) -> None:
        """Waits until `count` files below `cwd` match the pattern. Fails if the script ends first."""
        ended = False
        while len(list(self.cwd.glob(pattern))) < count:
            assert not ended, self.stdout + self.stderr
            ended = self.returncode is not None  # before the files are looked for once more
            time.sleep(0.02)

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait(self, timeout: float = 100) -> "Script":
        """Waits for the end. Kills the process and raises TimeoutError after `timeout` seconds."""
        self.process.join(timeout)
        if self.returncode is None:
            self.process.kill()
            raise TimeoutError(f"{self.process}: {self.stdout}{self.stderr}")
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def script(*arguments: object, cwd: Path, before: str = "", **environment: str) -> Script:
    return Script(*arguments, cwd=cwd, environment=environment, before=before).wait()


def succeeds(*arguments: object, cwd: Path, before: str = "", **environment: str) -> Script:
    """Runs a script, which has to succeed."""
    done = script(*arguments, cwd=cwd, before=before, **environment)
    assert done.returncode == 0, done.stderr
    return done


def refused(*arguments: object, cwd: Path, before: str = "", **environment: str) -> str:
    """Runs a script, which has to end with exit status 2 and one line on stderr, and returns that line."""
    done = script(*arguments, cwd=cwd, before=before, **environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    return done.stderr


def train_tiny(cwd: Path, *options: str) -> Script:
    """Trains on the tiny data set."""
    return succeeds("train.py", *tiny_data(cwd), *TINY, *options, cwd=cwd)


def trained_once(cwd: Path, prepare: Callable[[Path], Iterable[str]], **environment: str) -> Path:
    """Trains with the arguments that `prepare` returns, which writes the data, unless a worker of pytest-xdist has done
    it. Returns the run folder, which tests must not change. `cwd` holds a file stdout, too.
    """
    with FileLock(f"{cwd}.lock"):
        if not (cwd / "stdout").exists():
            cwd.mkdir(exist_ok=True)
            (cwd / "stdout").write_text(succeeds("train.py", *prepare(cwd), cwd=cwd, **environment).stdout)
    return run_folder(cwd)


def call_unchecked(function: Callable[..., object], *arguments: object) -> None:
    """Calls the function in a process that does not check shapes: torch.compile cannot trace these checks."""
    process = FORKSERVER.Process(target=function, args=arguments)
    process.start()
    process.join(100)
    assert process.exitcode == 0, "see the traceback above"


def importing_from(folder: Path) -> str:
    """Returns what to run before a script that imports modules of that folder."""
    return f"import sys; sys.path.insert(0, {str(folder)!r})"


def train_with_a_kill(*words: str, cwd: Path) -> Path:
    """Kills a run after its first epoch, and resumes it. Returns its folder."""
    killed = Script("train.py", *words, "hydra.run.dir=resumed", cwd=cwd, before=waiting_after(1))
    killed.wait_for("resumed/checkpoints/last.ckpt")
    killed.kill()
    succeeds("train.py", "run=resumed", cwd=cwd)
    return cwd / "resumed"


def waiting_after(epoch: int, name: str = "*") -> str:
    """Returns what to run before a script that then waits to be killed when it has saved that epoch; in a sweep, only
    the job of that name does.
    """
    return f"""
import fnmatch, signal
from quadrant_lstm.callbacks.checkpoints import Checkpoints
save = Checkpoints.on_train_epoch_end
def save_and_wait(self, trainer, module):
    save(self, trainer, module)
    while trainer.current_epoch + 1 == {epoch} and fnmatch.fnmatch(self.folder.name, {name!r}):
        signal.pause()
Checkpoints.on_train_epoch_end = save_and_wait
"""


def run(arguments: list[str], cwd: str, environment: dict[str, str], files: list[str], before: str) -> None:
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    name, *rest = arguments
    sys.argv = [str(ROOT / name), *rest]
    sys.orig_argv = [sys.executable, *sys.argv]
    exec(before, {})
    runpy.run_path(sys.argv[0], run_name="__main__")

"""Tests that Ctrl-C and SIGTERM end a command at once in each of its phases, and that a run can then be resumed."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quadrant_lstm.run_folder import LOG, read_results
from quadrant_lstm.signals import Interrupt, exit_at_signals, interrupt, interrupts_first
from tests.clips import write_clip_folder
from tests.folders import TINY, run_folder, tiny_data, wait_until_no_process_remains
from tests.scripts import FORKSERVER, ROOT, Script, script

IMAGES, CLIPS = "images", "clips"
SMALL = ("data.num_frames=4", "data.batch_size=3", "model.filters=[4]", "model.pool_size=2", "trainer.max_epochs=2")
SHUTDOWN = "multiprocessing.process.BaseProcess.join"  # the main process waits for the end of a worker
DRAWING = "matplotlib.figure.Figure.savefig"
OCCLUDING = "quadrant_lstm.dashboard.pictures.network.accuracy_by_occluded_step"
REPORTING = "quadrant_lstm.run.train.write_run_report"


def options(data: str, cwd: Path) -> tuple[str, ...]:
    """Returns the options of a short run with a dashboard."""
    if data == IMAGES:
        return (*tiny_data(cwd), *TINY[1:], "trainer.max_epochs=2")
    root = write_clip_folder(cwd / "data", per_class=8, num_frames=[2, 5, 3])
    return ("data=clips", f"data.root={root}", "data.layout=THWC", "data.num_workers=2", *SMALL)


def signalled_in(function: str, signum: int, after: str = "*") -> str:
    """Returns what to run before a script that then gets a signal when it calls the function, once a file below the
    working directory matches `after`. It prints the time of the signal, and when it calls the function again.
    """
    owner, _, name = function.rpartition(".")
    return f"""
import os, pathlib, pkgutil, time
owner, main, calls = pkgutil.resolve_name({owner!r}), os.getpid(), []
original = owner.{name}
def signalled(*arguments, **options):
    if os.getpid() == main and list(pathlib.Path().glob({after!r})):
        calls.append(None)
        if len(calls) == 1:
            print("signal at", time.monotonic(), flush=True)
            os.kill(main, {int(signum)})
        else:
            print("called again")
    return original(*arguments, **options)
owner.{name} = signalled
"""


def assert_ended(process: Script, signum: int, sent: float | None = None) -> str:
    """Returns the output of a script that a signal has ended as it should. Without `sent` it has printed the time."""
    process.wait()
    ended = time.monotonic()
    output = process.stdout + process.stderr
    sent = sent or float(output.partition("signal at ")[2].partition("\n")[0])
    assert process.returncode == 128 + signum, output
    assert ended - sent < 10
    assert "Traceback" not in output
    assert "Exception ignored" not in output
    assert output.count("interrupted") == 1, output
    return output


STARTED, TRAINED = "outputs/2*/*/.hydra/config.yaml", "outputs/2*/*/checkpoints/last.ckpt"
SIGINT, SIGTERM = signal.SIGINT, signal.SIGTERM


@pytest.mark.parametrize(
    ("signum", "data", "phase", "after"),
    [
        (SIGINT, CLIPS, SHUTDOWN, STARTED),  # of those that examine clips
        (SIGTERM, IMAGES, "quadrant_lstm.run.build.check_network", STARTED),
        (SIGINT, CLIPS, "quadrant_lstm.model.classifier.Classifier.training_step", STARTED),
        (SIGINT, CLIPS, SHUTDOWN, TRAINED),  # of those that read batches
        (SIGINT, IMAGES, "quadrant_lstm.model.classifier.Classifier.test_step", STARTED),
        (SIGINT, IMAGES, DRAWING, TRAINED),
        (SIGTERM, CLIPS, OCCLUDING, STARTED),
        (SIGINT, IMAGES, REPORTING, STARTED),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else value.rpartition(".")[2],
)
def test_a_signal_ends_a_run_in_each_of_its_phases(signum, data, phase, after, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = options(data, tmp_path)
    if phase not in (DRAWING, OCCLUDING, REPORTING):
        words += (TINY[0],)  # no dashboard
    process = Script("train.py", *words, cwd=tmp_path, before=signalled_in(phase, signum, after))
    output = assert_ended(process, signum)
    assert "called again" not in output or phase == SHUTDOWN
    run = run_folder(tmp_path).relative_to(tmp_path)
    assert f"interrupted; resume with: python train.py run={run}\n" in process.stdout
    assert not read_results(run)


SLOW_READERS = """
import os, pathlib, time
from quadrant_lstm.data.datamodule import WorkerLoader
from quadrant_lstm.signals import exit_at_signals, prepare_to_exit

def read_slowly(_):
    pathlib.Path(f"{os.getpid()}.reading").touch()
    time.sleep(60)

def main():
    batches = iter(WorkerLoader(read_slowly, range(8), 4))
    try:
        next(batches)
    finally:
        prepare_to_exit()

exit_at_signals()
main()
"""


@pytest.mark.reliability
def test_a_process_does_not_wait_long_for_the_batches_that_its_workers_read(tmp_path):
    """Only where Python itself exits does the DataLoader wait for one worker after another, for five seconds each."""
    process = subprocess.Popen([sys.executable, "-c", SLOW_READERS], cwd=tmp_path, stderr=subprocess.PIPE)
    while len(list(tmp_path.glob("*.reading"))) < 4:
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    sent = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, b"")
    assert time.monotonic() - sent < 10


SIGNAL_BETWEEN_STARTS = """
import os, signal, threading, time
from multiprocessing.process import BaseProcess
from quadrant_lstm.data.datamodule import WorkerLoader
from quadrant_lstm.signals import exit_at_signals

def start(self):
    if started:
        os.kill(os.getpid(), signal.SIGTERM)  # arrives in any thread
        time.sleep(0.1)
    started.append(self)
    original(self)

threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
exit_at_signals()
started, original, BaseProcess.start = [], BaseProcess.start, start
iter(WorkerLoader(str, range(8), 2))
"""


def test_a_signal_while_workers_start_ends_the_process_after_their_start(tmp_path):
    (tmp_path / "program.py").write_text(SIGNAL_BETWEEN_STARTS)
    done = script(tmp_path / "program.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (143, "")


@pytest.mark.parametrize(
    ("signum", "command", "phase"),
    [
        (SIGINT, ("evaluate.py",), "quadrant_lstm.model.classifier.Classifier.test_step"),
        (SIGTERM, ("predict.py", "images=test"), "quadrant_lstm.run.predict.classify"),
        (SIGINT, ("export.py", "format=safetensors"), "quadrant_lstm.run.export.metadata_of"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_signal_ends_a_command_that_reads_a_run(signum, command, phase, finished_run):
    cwd = finished_run.parents[2]
    process = Script(*command, "run=latest", cwd=cwd, before=signalled_in(phase, signum))
    assert_ended(process, signum)
    assert process.stderr == "interrupted\n"


AT_IMPORT = """
import os, runpy, signal, sys
class Signalling:
    def find_spec(self, name, *_):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
        assert name != "lightning", "the signal was deferred"
sys.meta_path.insert(0, Signalling())
module = sys.argv[1]
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "words", "says"),
    [
        *(("hydra", [name], b"") for name in ("train.py", "evaluate.py", "predict.py", "export.py")),
        ("torch", ["train.py"], b"interrupted\n"),
        ("torch", ["evaluate.py", "run=latest"], b"interrupted\n"),
    ],
    ids=str,
)
def test_a_signal_ends_a_script_that_still_imports_modules(module, words, says, finished_run):
    command = [sys.executable, "-c", AT_IMPORT, module, ROOT / words[0], *words[1:]]
    done = subprocess.run(command, cwd=finished_run.parents[2], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (130, says)


def test_an_error_that_an_interrupt_led_to_does_not_hide_it():
    with pytest.raises(Interrupt), interrupts_first():
        try:
            interrupt(SIGTERM, None)
        finally:
            raise OSError("Writer is closed")
    with pytest.raises(OSError, match="Writer is closed"), interrupts_first():
        raise OSError("Writer is closed")


class Deleted:
    def __del__(self) -> None:
        signal.raise_signal(SIGTERM)  # Python drops what its handler raises


def delete_twice() -> None:
    exit_at_signals()
    for _ in range(2):
        Deleted()
    time.sleep(20)


def test_an_exception_that_python_drops_is_raised_again():
    process = FORKSERVER.Process(target=delete_twice)
    process.start()
    process.join(10)
    assert process.exitcode == 143


MOMENTS = 20


@pytest.mark.reliability
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("data", [IMAGES, CLIPS])
@pytest.mark.parametrize(
    ("signum", "send"),
    [(SIGTERM, os.kill), (SIGINT, os.kill), (SIGINT, os.killpg)],  # a terminal sends Ctrl-C to the process group
    ids=["SIGTERM", "SIGINT", "Ctrl-C"],
)
def test_a_signal_at_any_moment_ends_a_run_that_then_resumes(data, signum, send, tmp_path, monkeypatch, record_figure):
    monkeypatch.setenv("HOME", str(tmp_path))
    draw, seconds, slowest, ended, resumed = random.Random(0), 0.0, 0.0, 0, 0
    for number in itertools.count():
        cwd = tmp_path / str(number)
        cwd.mkdir()
        process = Script("train.py", *options(data, cwd), cwd=cwd, before="import os; os.setpgrp()")
        process.wait_for("outputs/2*/*/.hydra/config.yaml")
        start = time.monotonic()
        if not number:
            assert process.wait(600).returncode == 0, process.stderr
            seconds = time.monotonic() - start
            continue
        time.sleep(draw.random() * seconds)
        if process.returncode is None:
            send(process.pid, signum)
        sent, run = time.monotonic(), run_folder(cwd)
        process.wait(600)
        if read_results(run):  # it had finished when the signal came
            continue
        output = assert_ended(process, signum, sent)
        said = f"interrupted; resume with: python train.py run={run.relative_to(cwd)}\n" in output
        assert said or not (run / LOG).exists()  # else the run had not begun to train
        slowest, ended = max(slowest, time.monotonic() - sent), ended + 1
        wait_until_no_process_remains(cwd)
        if ended % 4 == 0:
            done = Script("train.py", f"run={run}", cwd=cwd).wait(600)
            assert done.returncode == 0, done.stderr
            assert read_results(run)["epochs"] == 2
            resumed += 1
        if ended == MOMENTS:
            break
    how = "the process group" if send is os.killpg else "the process"
    record_figure(
        f"{signal.Signals(signum).name} to {how} of a run on {data}: {ended} of {MOMENTS} end with "
        f"{128 + signum}, within {slowest:.1f} s; {resumed} of {resumed} that were resumed finish"
    )

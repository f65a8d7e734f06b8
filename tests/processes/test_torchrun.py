"""Runs train.py under torchrun, whose agents are processes of this machine.

Each agent of the command line and each of its processes imports torch afresh, which takes long: only tests marked
`reliability` start them. The others fork these processes, or the agent.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.distributed import PrefixStore, TCPStore

from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.cli.arguments import reader_arguments, shared_arguments
from quadrant_lstm.errors import UserError
from quadrant_lstm.processes import torchrun
from quadrant_lstm.run_folder import read_results, read_rows
from tests.folders import TINY, children, run_folder, tiny_data
from tests.machines import Machine, free_port, two_machines
from tests.scripts import FORKSERVER, ROOT, Script, importing_from

pytestmark = pytest.mark.timeout(600)  # the waits below only end a test that hangs
AGENT = [sys.executable, "-m", "torch.distributed.run"]
CPU = ("trainer.accelerator=cpu",)
THIS = Machine("localhost")


@pytest.fixture
def start(tmp_path):
    """Returns a function that starts an agent on the tiny data set, and ends what is left of them."""
    tiny, agents = (*tiny_data(tmp_path, train=840), *TINY, *CPU), []

    def start_agent(*overrides, options=("--nproc-per-node=2",), machine=THIS):
        command = [*machine.prefix, *AGENT, *options, str(ROOT / "train.py"), *tiny, *overrides]
        stdout, stderr = (tmp_path / f"{len(agents)}.{name}" for name in ("stdout", "stderr"))
        agents.append(subprocess.Popen(command, cwd=tmp_path, stdout=stdout.open("w"), stderr=stderr.open("w")))
        return agents[-1], stdout, stderr

    yield start_agent
    for agent in agents:
        agent.kill()  # its processes end with it
        agent.wait()


def until_an_epoch_is_saved(cwd: Path) -> Path:
    end = time.monotonic() + 300
    while not (found := list(cwd.glob("outputs/2*/*/checkpoints/last.ckpt"))):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found[0].parents[1]


def epochs(run: Path) -> list[str]:
    return [row["epoch"] for row in read_rows(run / "metrics.csv")]


def environment(rank: int, store: TCPStore | None = None, port: int = 0, start: int = 0) -> dict[str, str]:
    """Returns the variables that torchrun sets for the process of one of two machines. Without a store of the agents,
    rank 0 serves one at the port.
    """
    return {
        "RANK": str(rank), "LOCAL_RANK": "0", "GROUP_RANK": str(rank),
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "GROUP_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port if store else port),
        "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": str(start),
        "TORCHELASTIC_USE_AGENT_STORE": str(store is not None),
        "TORCHELASTIC_ERROR_FILE": f"agent{rank}/attempt_{start}/0/error.json",
    }  # fmt: skip


@pytest.fixture
def store():
    """A store as an agent serves it, also to processes of later starts."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def meeting(store, tmp_path, monkeypatch):
    """Returns a function that makes the meeting of one process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torchrun, "end_with_parent", lambda _: None)

    def make(rank: int, start: int = 0) -> torchrun.Meeting:
        Path(f"agent{rank}").mkdir(exist_ok=True)
        for name, value in environment(rank, store, start=start).items():
            monkeypatch.setenv(name, value)
        return torchrun.Meeting()

    return make


def test_a_new_first_process_hears_of_the_run_from_the_others(meeting, tmp_path):
    Path("agent1").mkdir()
    Path("agent1/run_folder").write_text("run")
    first, _ = meeting(0), meeting(1)
    assert first.earlier_folder() == "run"


def test_what_processes_of_an_earlier_start_have_told_is_not_heard(meeting, monkeypatch):
    monkeypatch.setattr(torchrun, "TIMEOUT", timedelta(seconds=0.2))
    earlier = [meeting(rank) for rank in (0, 1)]
    assert earlier[1].report("a mistake")
    again = meeting(0, start=1)
    with pytest.raises(UserError, match="torchrun: rank 1 did not answer within 0 s; restart torchrun on all machi"):
        again.earlier_folder()
    assert not again.report("a mistake")  # it was printed before


def test_a_machine_that_does_not_see_the_run_folder_is_named(meeting, monkeypatch, tmp_path):
    monkeypatch.setattr(torchrun, "SECONDS_TO_APPEAR", 0.2)
    other = meeting(1)
    other.set("folder", json.dumps([str(tmp_path), "the mark of this run"]))
    (tmp_path / ".torchrun").write_text("of another run")
    with pytest.raises(UserError, match=f"outputs: this machine does not see the run folder {tmp_path}; start"):
        other.wait_for_folder()
    (tmp_path / ".torchrun").write_text("the mark of this run")
    assert other.wait_for_folder() == str(tmp_path)
    assert re.fullmatch(r"machine \S+: ", other.machine)


def test_machines_whose_configs_differ_are_refused(meeting, tmp_path):
    """They would validate on images that they train on."""
    meeting(0).set("config", "data: {validation_seed: 0}\n")
    line = "data.validation_seed: is 5 for rank 1, but 0 for rank 0; start the same command, with the same conf/, on a"
    with pytest.raises(UserError, match=line):
        meeting(1).share(tmp_path, "data:\n  validation_seed: 5\n")


def test_machines_whose_data_differ_are_refused(meeting):
    meeting(0).compare_data("a7", timedelta(seconds=5))
    meeting(1).compare_data("a7", timedelta(seconds=5))
    with pytest.raises(UserError, match="data: the files or their splits differ from those of rank 0; copy its data"):
        meeting(1).compare_data("b8", timedelta(seconds=5))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("-m seed=1,2", "-m: a sweep starts the processes of its jobs itself; run it without torchrun, or on SLURM."),
        ("trainer.devices=3", "trainer.devices: 3, but torchrun started 1; leave it out."),
        ("trainer.num_nodes=1", "trainer.num_nodes: 1, but torchrun started 2; leave it out."),
    ],
)
def test_what_torchrun_has_decided_cannot_be_typed(words, line, meeting):
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        shared_arguments(words.split(), meeting(0))
    with pytest.raises(UserError, match="torchrun: only train.py works in several processes; start this script with p"):
        reader_arguments(["run=latest"])


def test_machines_with_unequal_numbers_of_processes_are_refused(meeting, monkeypatch):
    first = meeting(0)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="--nproc-per-node: is 1 here, but not on all machines; start as many on each."):
        shared_arguments(["seed=1"], first)


@pytest.fixture
def run_both(tmp_path):
    """Returns a function that runs train.py in the processes of two machines."""
    tiny = (*tiny_data(tmp_path), *TINY, *CPU)

    def run(word: str, folders=(tmp_path, tmp_path), **options):
        both = []
        for rank, folder in enumerate(folders):
            (folder / f"agent{rank}").mkdir(exist_ok=True)
            both.append(Script("train.py", *tiny, word, cwd=folder, environment=environment(rank, **options)))
        return [process.wait() for process in both]

    return run


def error_of(processes: list[Script]) -> str:
    """Returns the only line on the stderr of the processes, which have been refused."""
    assert [process.returncode for process in processes] == [2, 2]
    (line,) = "".join(process.stderr for process in processes).splitlines()
    return line.partition(": ")[2]  # without the name of the machine


def test_a_mistake_is_one_line_for_all_processes_and_restarts(run_both, store, tmp_path):
    word = "hydra.run.dir=/proc/run"
    assert error_of(run_both(word, store=store)).startswith("hydra.run.dir: /proc/run cannot be made (No such")
    assert not "".join(process.stderr for process in run_both(word, store=store, start=1))
    assert not list(tmp_path.glob("outputs/*"))


def test_a_run_that_is_started_again_keeps_its_config(run_both, store, tmp_path):
    assert [process.returncode for process in run_both("label_smoothing=0.0", store=store)] == [0, 0]
    (run_folder(tmp_path) / "results.json").unlink()  # as if a process had been killed in the test
    error = error_of(run_both("label_smoothing=0.1", store=store, start=1))
    assert re.match("label_smoothing: .* was trained with 0.0, but conf/ or an override has 0.1; resume it with", error)


def test_the_process_that_serves_the_store_waits_for_the_others_only_when_its_error_is_printed(monkeypatch):
    """Torchrun ends all processes as soon as one of the others has heard of the error and ended."""
    waits: list[float] = []
    monkeypatch.setattr(torchrun.time, "sleep", waits.append)
    monkeypatch.setattr(torchrun, "end_with_parent", lambda _: None)
    for name, value in environment(0, port=free_port()).items():
        monkeypatch.setenv(name, value)
    first = torchrun.Meeting()
    first.leave()
    assert first.report("a mistake")
    assert not waits
    first.leave()
    assert waits == [torchrun.SECONDS_TO_HEAR]


def test_what_an_option_shows_is_printed_once(run_both, store):
    both = run_both("--cfg=job", store=store)
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(process.stdout for process in both).count("_target_: lightning.pytorch.Trainer") == 1


@pytest.mark.parametrize("missing_at", [0, 1])
def test_a_folder_that_one_machine_lacks_ends_all_machines_at_once(missing_at, run_both, tmp_path, record_figure):
    """Whichever machine has rank 0, which serves the store, as docs/machines.md starts torchrun."""
    folders = [tmp_path, tmp_path]
    folders[missing_at] = tmp_path / "other"
    folders[missing_at].mkdir()
    begin = time.monotonic()
    both = run_both("data.root=tiny", folders=folders, port=free_port())
    took = time.monotonic() - begin
    record_figure(f"one of two machines lacks data.root: both end {took:.0f} s after the start")
    assert error_of(both).startswith("data.root: tiny is not a folder; give one")
    assert both[missing_at].stderr
    assert took < 100  # below the timeout of 120 s
    assert not list(tmp_path.glob("**/outputs/2*/*"))


def wait_for_rank_0(port: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ |= environment(1, port=port)
    meeting = torchrun.Meeting()
    meeting.set("waits", "")
    meeting.wait_for_folder()


def test_a_process_that_waits_for_the_first_one_ends_at_sigterm():
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    waiting = FORKSERVER.Process(target=wait_for_rank_0, args=(store.port,))
    waiting.start()
    PrefixStore("start", store).get("waits")
    waiting.terminate()
    waiting.join(10)
    assert waiting.exitcode == 143


OWN_NETWORK = """
import math
from torch import nn


class OwnNetwork(nn.Sequential):
    def __init__(self, frame_shape, num_classes, filters):
        super().__init__(nn.Flatten(), nn.Linear(4 * math.prod(frame_shape), num_classes))
"""


FORKING_AGENT = """
import runpy, sys
from torch.distributed.launcher import LaunchConfig, elastic_launch

def train(path):
    sys.argv = [path, *sys.argv[1:]]
    runpy.run_path(path, run_name="__main__")

rendezvous = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": "test"}
config = LaunchConfig(1, 1, 2, max_restarts=2, start_method="fork", monitor_interval=0.1, **rendezvous)
elastic_launch(config, train)(sys.argv.pop(1))
"""


def test_a_run_whose_process_was_killed_ends_as_one_on_our_own_processes(tmp_path):
    """Also with a class of the user's own. torchrun's agent forks its processes, which have then imported torch."""
    (tmp_path / "own_network.py").write_text(OWN_NETWORK)
    (tmp_path / "agent.py").write_text(FORKING_AGENT)
    tiny = (*tiny_data(tmp_path, train=840), *TINY, *CPU)
    words = ("trainer.max_epochs=10", "model._target_=own_network.OwnNetwork")
    before = importing_from(tmp_path)
    agent = Script(tmp_path / "agent.py", ROOT / "train.py", *tiny, *words, cwd=tmp_path, before=before)
    assert any(line.startswith("epoch 1/10") for line in agent.lines()), agent.stderr
    os.kill(children(agent.pid)[-1], signal.SIGKILL)
    assert agent.wait().returncode == 0, agent.stderr
    run = run_folder(tmp_path)
    assert epochs(run) == [str(epoch) for epoch in range(1, 11)]
    assert agent.stdout.count("epoch 1/10") == 1
    assert "after its last finished epoch" in agent.stdout
    assert read_results(run)["test/images"] == 70

    (tmp_path / "own").mkdir()
    own = Script("train.py", *tiny, *words, "trainer.devices=2", cwd=tmp_path / "own", before=before).wait()
    assert own.returncode == 0, own.stderr
    one, other = (read_checkpoint(found / "checkpoints/last.ckpt") for found in (run, run_folder(tmp_path / "own")))
    assert one["global_step"] == other["global_step"] == 250
    torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=0, atol=1e-6)


@pytest.mark.reliability
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_the_last_finished_epoch(number, start, tmp_path):
    agent, stdout, stderr = start("trainer.max_epochs=1000", options=("--nproc-per-node=2", "--max-restarts=2"))
    run = until_an_epoch_is_saved(tmp_path)
    agent.send_signal(number)
    assert agent.wait() == 1
    line = f"interrupted; resume with: torchrun ... train.py run={run.relative_to(tmp_path)}\n"
    assert line in stdout.read_text() and "interrupted" not in stderr.read_text()
    saved = read_checkpoint(run / "checkpoints/last.ckpt")["epoch"] + 1
    assert epochs(run) == [str(epoch) for epoch in range(1, saved + 1)]


@pytest.mark.reliability
def test_a_machine_whose_agent_was_killed_joins_again(start, tmp_path, monkeypatch):
    """Two machines share one run."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")  # as docs/machines.md says
    nodes = ("--nnodes=2", "--nproc-per-node=1", "--max-restarts=2", "--rdzv-backend=c10d", "--rdzv-id=test")
    with two_machines() as machines:
        options = (*nodes, f"--rdzv-endpoint={machines[0].name}:{free_port()}")
        begin = partial(start, "trainer.max_epochs=150", options=options)
        first, (second, *_) = (begin(machine=machine) for machine in machines)
        run = until_an_epoch_is_saved(tmp_path)
        second.kill()
        time.sleep(1)
        both = first, begin(machine=machines[1])
        for agent, _, stderr in both:
            assert agent.wait() == 0, stderr.read_text()
    assert run_folder(tmp_path) == run
    assert epochs(run) == [str(epoch) for epoch in range(1, 151)]
    assert read_results(run)["test/images"] == 70
    assert sorted(stdout.read_text().count("test accuracy") for _, stdout, _ in both) == [0, 1]

"""Runs train.py under torchrun, whose agents are processes of this machine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from quadrant_lstm.callbacks.checkpoint_io import read_checkpoint
from quadrant_lstm.errors import UserError
from quadrant_lstm.processes import torchrun
from quadrant_lstm.run_folder import read_rows
from tests.folders import TINY, children, run_folder, write_idx_folder
from tests.scripts import FORKSERVER, ROOT, script

AGENT = [sys.executable, "-m", "torch.distributed.run"]
CPU = ("trainer.accelerator=cpu",)


class Agent:
    """A running torchrun. Its processes end with it."""

    def __init__(self, cwd: Path, options: tuple[str, ...], overrides: tuple[str, ...], **environment: str):
        number = len(list(cwd.glob("*.stdout")))
        self.outputs = [cwd / f"{number}.{name}" for name in ("stdout", "stderr")]
        with contextlib.ExitStack() as stack:
            stdout, stderr = (stack.enter_context(output.open("w")) for output in self.outputs)
            command = [*AGENT, *options, str(ROOT / "train.py"), *overrides]
            env = os.environ | environment
            self.process = subprocess.Popen(command, cwd=cwd, env=env, stdout=stdout, stderr=stderr)

    def wait(self) -> int:
        return self.process.wait(100)

    @property
    def stdout(self) -> str:
        return self.outputs[0].read_text()

    @property
    def stderr(self) -> str:
        return self.outputs[1].read_text()


@pytest.fixture
def start(tmp_path):
    """Returns a function that starts an agent on the tiny data set, and ends what is left of them."""
    data, agents = write_idx_folder(tmp_path / "tiny", train=840), []
    tiny = ("data=idx", f"data.root={data}", *TINY, *CPU)

    def start_agent(*overrides, options=("--nproc-per-node=2",), **environment):
        agents.append(Agent(tmp_path, options, (*tiny, *overrides), **environment))
        return agents[-1]

    yield start_agent
    for agent in agents:
        agent.process.kill()
        agent.process.wait()


def until_an_epoch_is_saved(cwd: Path) -> Path:
    end = time.monotonic() + 60
    while not (found := list(cwd.glob("outputs/2*/*/checkpoints/last.ckpt"))):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found[0].parents[1]


def epochs(run: Path) -> list[str]:
    return [row["epoch"] for row in read_rows(run / "metrics.csv")]


def test_its_processes_share_one_run_and_compute_what_our_own_do(start, tmp_path):
    steps = ("trainer.max_epochs=2",)
    agent = start(*steps)
    assert agent.wait() == 0, agent.stderr
    assert agent.stdout.count("epoch 1/2") == 1
    under_torchrun = run_folder(tmp_path)
    assert json.loads((under_torchrun / "results.json").read_text())["test/images"] == 70
    (tmp_path / "own").mkdir()
    data = f"data.root={tmp_path / 'tiny'}"
    own = script("train.py", "data=idx", data, *TINY, *CPU, "trainer.devices=2", *steps, cwd=tmp_path / "own")
    assert own.returncode == 0, own.stderr
    one, other = (
        read_checkpoint(run / "checkpoints/last.ckpt") for run in (under_torchrun, run_folder(tmp_path / "own"))
    )
    assert one["global_step"] == other["global_step"] == 50
    for name, weight in one["state_dict"].items():
        assert (weight - other["state_dict"][name]).abs().max() <= 1e-6, name


def meet(rank: int, port: int, agent: Path, output: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "GROUP_RANK": str(rank)}
    os.environ["TORCHELASTIC_ERROR_FILE"] = str(agent / "attempt_0/0/error.json")
    meeting = torchrun.Meeting()
    if rank == 0:
        meeting.decide(torchrun.Decision(meeting.earlier, resumes=True))
    else:
        output.write_text(meeting.wait_for_decision().folder)


def test_a_new_first_process_hears_of_the_run_from_the_others(tmp_path):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("hello/1", json.dumps(["a process that was killed", ""]))
    agents = [tmp_path / "new", tmp_path / "survivor"]
    for agent in agents:
        agent.mkdir()
    (agents[1] / "run_folder").write_text(str(tmp_path / "run"))
    processes = [
        FORKSERVER.Process(target=meet, args=(rank, store.port, agent, tmp_path / "decision"))
        for rank, agent in enumerate(agents)
    ]
    processes[0].start()
    time.sleep(1)  # it asks the killed process first
    processes[1].start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "decision").read_text() == str(tmp_path / "run")
    assert (agents[0] / "run_folder").read_text() == str(tmp_path / "run")


def test_a_node_that_does_not_see_the_run_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUP_RANK", "1")
    monkeypatch.setattr(torchrun, "SECONDS_TO_APPEAR", 0.2)
    (tmp_path / ".torchrun").write_text("of another run")
    with pytest.raises(UserError, match=f"outputs: node 1 does not see the run folder {tmp_path}; start torchrun in a"):
        torchrun.check_mark(str(tmp_path), "of this run")
    (tmp_path / ".torchrun").write_text("of this run")
    torchrun.check_mark(str(tmp_path), "of this run")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("model.lstm_units=many",), "model.lstm_units: 'many' is not a whole number of at least 1; write e.g."),
        (("-m", "seed=1,2"), "-m: a sweep starts the processes of its jobs itself; run it without torchrun"),
        (("trainer.devices=3",), "trainer.devices: 3, but torchrun started 2; leave it out."),
    ],
)
def test_a_mistake_is_one_line_for_all_processes_and_restarts(words, line, start, tmp_path):
    agent = start(*words, options=("--nproc-per-node=2", "--max-restarts=1"))
    assert agent.wait() == 1
    assert agent.stderr.count(line) == 1
    assert not list(tmp_path.glob("outputs/*"))


def test_a_killed_process_costs_no_more_than_its_epoch(start, tmp_path):
    agent = start("trainer.max_epochs=40", options=("--nproc-per-node=2", "--max-restarts=2"))
    run = until_an_epoch_is_saved(tmp_path)
    os.kill(children(agent.process.pid)[-1], signal.SIGKILL)
    assert agent.wait() == 0, agent.stderr
    assert run_folder(tmp_path) == run
    assert epochs(run) == [str(epoch) for epoch in range(1, 41)]
    assert "after its last finished epoch" in agent.stdout


@pytest.mark.reliability
def test_a_node_whose_agent_was_killed_joins_again(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nodes = ("--nnodes=2", "--nproc-per-node=1", "--max-restarts=2", "--rdzv-backend=c10d", "--rdzv-id=test")
    options = (*nodes, f"--rdzv-endpoint=127.0.0.1:{port}")
    environment = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    first = start("trainer.max_epochs=150", options=options, **environment)
    second = start("trainer.max_epochs=150", options=options, **environment)
    run = until_an_epoch_is_saved(tmp_path)
    second.process.kill()
    time.sleep(1)
    again = start("trainer.max_epochs=150", options=options, **environment)
    assert first.wait() == 0, first.stderr
    assert again.wait() == 0, again.stderr
    assert run_folder(tmp_path) == run
    assert epochs(run) == [str(epoch) for epoch in range(1, 151)]

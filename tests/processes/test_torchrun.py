"""Runs train.py under torchrun, whose agents are processes of this machine."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from torch.distributed import TCPStore

from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.cli.arguments import check_arguments, only_shows, with_devices
from quadrant_lstm.errors import UserError
from quadrant_lstm.processes import torchrun
from quadrant_lstm.run_folder import read_results, read_rows
from tests.folders import TINY, children, run_folder, write_idx_folder
from tests.machines import Machine, free_port, two_machines
from tests.scripts import FORKSERVER, ROOT, script

pytestmark = pytest.mark.timeout(600)  # the waits below only end a test that hangs
AGENT = [sys.executable, "-m", "torch.distributed.run"]
CPU = ("trainer.accelerator=cpu",)
THIS = Machine("localhost")


class Agent:
    """A running torchrun. Its processes end with it."""

    def __init__(self, cwd: Path, machine: Machine, options: tuple[str, ...], words: tuple[str, ...], script: Path):
        number = len(list(cwd.glob("*.stdout")))
        self.outputs = [cwd / f"{number}.{name}" for name in ("stdout", "stderr")]
        with contextlib.ExitStack() as stack:
            stdout, stderr = (stack.enter_context(output.open("w")) for output in self.outputs)
            command = [*machine.prefix, *AGENT, *options, str(script), *words]
            self.process = subprocess.Popen(command, cwd=cwd, stdout=stdout, stderr=stderr)

    def wait(self) -> int:
        return self.process.wait(300)

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

    def start_agent(*overrides, options=("--nproc-per-node=2",), machine=THIS, checkout=ROOT):
        agents.append(Agent(tmp_path, machine, options, (*tiny, *overrides), checkout / "train.py"))
        return agents[-1]

    yield start_agent
    for agent in agents:
        agent.process.kill()
        agent.process.wait()


def until_an_epoch_is_saved(cwd: Path) -> Path:
    end = time.monotonic() + 300
    while not (found := list(cwd.glob("outputs/2*/*/checkpoints/last.ckpt"))):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found[0].parents[1]


def own_lines(agents: list[Agent]) -> list[str]:
    """Returns our own lines on the stderr of several machines, among those of torchrun."""
    lines = [line for agent in agents for line in agent.stderr.splitlines()]
    assert not [line for line in lines if "quadrant_lstm" in line], "a traceback"
    return [line for line in lines if line.startswith("machine ")]


def epochs(run: Path) -> list[str]:
    return [row["epoch"] for row in read_rows(run / "metrics.csv")]


def test_its_processes_share_one_run_and_compute_what_our_own_do(start, tmp_path):
    steps = ("trainer.max_epochs=2",)
    agent = start(*steps)
    assert agent.wait() == 0, agent.stderr
    assert agent.stdout.count("epoch 1/2") == 1
    under_torchrun = run_folder(tmp_path)
    assert read_results(under_torchrun)["test/images"] == 70
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


def environment(rank: int, port: int, agent: Path) -> dict[str, str]:
    """Returns the variables that torchrun sets for a process."""
    address = {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "GROUP_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    files = {"TORCHELASTIC_ERROR_FILE": str(agent / "attempt_0/0/error.json")}
    return address | files | {"TORCHELASTIC_USE_AGENT_STORE": "True"}


def meet(rank: int, port: int, agent: Path, output: Path) -> None:
    os.environ |= environment(rank, port, agent)
    meeting = torchrun.Meeting()
    if rank == 0:
        meeting.decide(meeting.earlier)
    else:
        output.write_text(meeting.wait_for_decision())
    meeting.check_same_config(OmegaConf.create({"seed": 1}))


def test_a_new_first_process_hears_of_the_run_from_the_others(tmp_path):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("hello/1", json.dumps(["a process that was killed", None]))
    agents = [tmp_path / "new", tmp_path / "survivor"]
    for agent in agents:
        agent.mkdir()
    (tmp_path / "run").mkdir()
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


def test_a_mark_of_another_run_is_not_this_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(torchrun, "SECONDS_TO_APPEAR", 0.2)
    (tmp_path / ".torchrun").write_text("of another run")
    assert not torchrun.sees_mark(str(tmp_path), "of this run")
    (tmp_path / ".torchrun").write_text("of this run")
    assert torchrun.sees_mark(str(tmp_path), "of this run")


@pytest.mark.parametrize("earlier", [False, True])
def test_a_process_that_never_starts_is_named_after_the_timeout(earlier, tmp_path, monkeypatch):
    monkeypatch.setattr(torchrun, "TIMEOUT", timedelta(seconds=1))
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    if earlier:
        store.set("hello/1", json.dumps(["a process that was killed", None]))
    for name, value in environment(0, store.port, tmp_path).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="torchrun: rank 1 did not answer within 1 s .*; restart torchrun on all mac"):
        torchrun.Meeting()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("-m seed=1,2", "-m: a sweep starts the processes of its jobs itself; run it without torchrun, or on SLURM."),
        ("trainer.devices=3", "trainer.devices: 3, but torchrun started 2; leave it out."),
        ("trainer.num_nodes=2", "trainer.num_nodes: 2, but torchrun started 1; leave it out."),
        (
            "trainer.strategy=ddp_spawn",
            "trainer.strategy: ddp_spawn starts processes, but torchrun has started them; leave it out.",
        ),
    ],
)
def test_what_torchrun_has_decided_cannot_be_typed(words, line, monkeypatch):
    for name, number in {"LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, number)
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        check_arguments(words.split())
        with_devices(words.split())


@pytest.mark.parametrize(
    ("word", "line", "restarts"),
    [
        ("model.lstm_units=many", "model.lstm_units: 'many' is not a whole number of at least 1; write e.g.", 1),
        ("hydra.run.dir=/proc/run", "hydra.run.dir: /proc/run cannot be made (No such file or directory); write", 0),
    ],
)
def test_a_mistake_is_one_line_for_all_processes_and_restarts(word, line, restarts, start, tmp_path):
    agent = start(word, options=("--nproc-per-node=2", f"--max-restarts={restarts}"))
    assert agent.wait() == 1
    assert agent.stderr.count(line) == 1
    assert 'train.py", line' not in agent.stderr  # no traceback of ours
    assert not list(tmp_path.glob("outputs/*"))


OWN_NETWORK = """
import math
from torch import nn


class OwnNetwork(nn.Sequential):
    def __init__(self, frame_shape, num_classes, filters):
        super().__init__(nn.Flatten(), nn.Linear(4 * math.prod(frame_shape), num_classes))
"""


def test_what_an_option_shows_is_printed_once(start):
    agent = start("--cfg=job")
    assert agent.wait() == 0, agent.stderr
    assert agent.stdout.count("_target_: lightning.pytorch.Trainer") == 1


@pytest.mark.parametrize("option", ["--help", "--hydra-help", "--version", "--cfg=job", "--info=all"])
def test_options_that_only_show_something_are_recognized(option):
    assert only_shows([option, "seed=2"])
    assert not only_shows(["seed=2"])


def test_a_script_that_reads_a_run_is_refused_once(start, tmp_path):
    options = ("--nproc-per-node=2", "--max-restarts=1")
    agent = Agent(tmp_path, THIS, options, ("run=latest", "images=test"), ROOT / "predict.py")
    assert agent.wait() == 1
    assert agent.stderr.count("torchrun: only train.py works in several processes; start this script with pyth") == 1


def wait_with_handler(*arguments) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    meet(*arguments)


def test_a_process_that_waits_for_the_first_one_ends_at_sigterm(tmp_path):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    waiting = FORKSERVER.Process(target=wait_with_handler, args=(1, store.port, tmp_path, tmp_path / "decision"))
    waiting.start()
    store.get("hello/1")
    waiting.terminate()
    waiting.join(10)
    assert waiting.exitcode == 143


def test_a_killed_process_costs_no_more_than_its_epoch_also_with_an_own_network(start, tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(OWN_NETWORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    words = ("trainer.max_epochs=15", "model._target_=own_network.OwnNetwork")
    agent = start(*words, options=("--nproc-per-node=2", "--max-restarts=2"))
    run = until_an_epoch_is_saved(tmp_path)
    os.kill(children(agent.process.pid)[-1], signal.SIGKILL)
    assert agent.wait() == 0, agent.stderr
    assert run_folder(tmp_path) == run
    assert epochs(run) == [str(epoch) for epoch in range(1, 16)]
    assert "after its last finished epoch" in agent.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupt_keeps_the_last_finished_epoch(number, start, tmp_path):
    agent = start("trainer.max_epochs=1000", options=("--nproc-per-node=2", "--max-restarts=2"))
    run = until_an_epoch_is_saved(tmp_path)
    agent.process.send_signal(number)
    assert agent.wait() == 1
    assert f"interrupted; resume with: torchrun ... train.py run={run.relative_to(tmp_path)}\n" in agent.stdout
    assert "interrupted" not in agent.stderr
    saved = read_checkpoint(run / "checkpoints/last.ckpt")["epoch"] + 1
    assert epochs(run) == [str(epoch) for epoch in range(1, saved + 1)]


@pytest.fixture
def machines():
    with two_machines() as machines:
        yield machines


def options_of(machines: list[Machine], restarts: int = 2) -> tuple[str, ...]:
    nodes = ("--nnodes=2", "--nproc-per-node=1", f"--max-restarts={restarts}")
    return (*nodes, "--rdzv-backend=c10d", "--rdzv-id=test", f"--rdzv-endpoint={machines[0].name}:{free_port()}")


def test_two_machines_share_one_run(start, machines, tmp_path):
    options = options_of(machines)
    first, second = (start(options=options, machine=machine) for machine in machines)
    assert first.wait() == 0, first.stderr
    assert second.wait() == 0, second.stderr
    assert epochs(run_folder(tmp_path)) == ["1", "2", "3"]
    assert read_results(run_folder(tmp_path))["test/images"] == 70
    assert sorted(agent.stdout.count("test accuracy") for agent in (first, second)) == [0, 1]


def test_different_commands_are_refused(start, machines, tmp_path):
    options = options_of(machines, restarts=0)
    words = ("optimizer.lr=0.01", "optimizer.lr=0.02")
    agents = [start(word, options=options, machine=machine) for word, machine in zip(words, machines, strict=True)]
    assert [agent.wait() for agent in agents] == [1, 1]
    (line,) = own_lines(agents)
    assert re.fullmatch(
        r"machine \S+: optimizer.lr: is 0.0[12] for rank 1, but 0.0[12] for rank 0; start the same command, with the "
        "same conf/, on all machines.",
        line,
    )
    assert not list(tmp_path.glob("outputs/2*/*"))


def test_machines_whose_checkouts_have_different_configs_are_refused(start, machines, tmp_path):
    """They would validate on images that they train on."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.copy(ROOT / "train.py", checkout)
    shutil.copytree(ROOT / "conf", checkout / "conf")
    idx = checkout / "conf" / "data" / "idx.yaml"
    idx.write_text(idx.read_text() + "\nvalidation_seed: 5\n")
    options = options_of(machines, restarts=1)
    first = start("seed=1", options=options, machine=machines[0])
    second = start("seed=1", options=options, machine=machines[1], checkout=checkout)
    assert [agent.wait() for agent in (first, second)] == [1, 1]
    lines = own_lines([first, second])
    assert len(set(lines)) == len(lines) in (1, 2)  # ranks may change when they start again
    for line in lines:
        values = re.match(
            r"machine \S+: data.validation_seed: is (\d) for rank 1, but (\d) for rank 0; start the", line
        )
        assert values and {*values.groups()} == {"0", "5"}, line
    assert not list(tmp_path.glob("outputs/2*/*"))


@pytest.mark.parametrize("missing_at", [0, 1])
def test_a_folder_that_one_machine_lacks_ends_all_machines_at_once(
    missing_at, start, machines, tmp_path, monkeypatch, record_figure
):
    """Whichever machine has rank 0, which serves the store of the meeting, as docs/machines.md starts torchrun."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    if not machines[0].prefix:
        pytest.skip("needs two machines")
    lacking = machines[missing_at]
    apart = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none tiny && exec "$@"', "sh")
    others = [machines[1 - missing_at], lacking._replace(prefix=(*lacking.prefix, *apart))]
    options = options_of(machines, restarts=0)
    begin = time.monotonic()
    agents = [start(options=options, machine=machine) for machine in others]
    assert [agent.wait() for agent in agents] == [1, 1]
    took = time.monotonic() - begin
    record_figure(f"one of two machines lacks data.root: both end {took:.0f} s after the start")
    (line,) = own_lines(agents)
    assert line.startswith(f"machine {lacking.name}: data.root: {tmp_path / 'tiny'} has no"), line
    assert took < 100  # below the timeout of 120 s
    assert not list(tmp_path.glob("outputs/2*/*"))


def test_a_machine_that_does_not_see_the_run_folder_is_named_once(start, machines, tmp_path):
    if not machines[0].prefix:
        pytest.skip("needs two machines")
    (tmp_path / "outputs").mkdir()
    apart = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none outputs && exec "$@"', "sh")
    others = [machines[0], machines[1]._replace(prefix=(*machines[1].prefix, *apart))]
    options = options_of(machines, restarts=0)
    agents = [start(options=options, machine=machine) for machine in others]
    assert [agent.wait() for agent in agents] == [1, 1]
    lines = "".join(agent.stderr for agent in agents)
    assert lines.count("does not see the run folder") == 1
    assert re.search(rf"machine quadrant-\S+: outputs: this machine does not see the run folder {tmp_path}/outp", lines)


@pytest.mark.reliability
def test_a_machine_whose_agent_was_killed_joins_again(start, machines, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    options = options_of(machines)
    first, second = (start("trainer.max_epochs=150", options=options, machine=machine) for machine in machines)
    run = until_an_epoch_is_saved(tmp_path)
    second.process.kill()
    time.sleep(1)
    again = start("trainer.max_epochs=150", options=options, machine=machines[1])
    assert first.wait() == 0, first.stderr
    assert again.wait() == 0, again.stderr
    assert run_folder(tmp_path) == run
    assert epochs(run) == [str(epoch) for epoch in range(1, 151)]

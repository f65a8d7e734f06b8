"""A sweep's jobs -> a table on a terminal that follows them; elsewhere, a line for each that begins or ends."""

import time
from collections.abc import Sequence
from types import TracebackType

import rich
from rich.live import Live
from rich.table import Table

from quadrant_lstm.console import say
from quadrant_lstm.pages import duration
from quadrant_lstm.sweep.jobs import Job, readable

WAITS, RUNS, DONE, PRUNED, FAILED = "waits", "runs", "done", "pruned", "failed"
STYLES = {WAITS: "dim", RUNS: "bold", DONE: "green", PRUNED: "yellow", FAILED: "red"}


class JobTable:
    """The jobs that are known, of `total`; others are added as they begin."""

    def __init__(self, known: Sequence[Job], total: int):
        self.jobs, self.total = list(known), total
        self.states = dict.fromkeys((job.number for job in known), WAITS)
        self.began: dict[int, tuple[float, int]] = {}  # when, and after which epoch
        self.epochs: dict[int, int] = {}
        self.took: list[float] = []
        self.console = rich.get_console()
        self.live = Live(console=self.console, auto_refresh=False, transient=False)

    def __enter__(self) -> "JobTable":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refresh()
        self.live.stop()

    def add(self, job: Job) -> None:
        if job.number not in self.states:
            self.jobs.append(job)
            self.states[job.number] = WAITS

    def runs(self, job: Job, epochs: int) -> None:
        """`epochs` is how many it is to do in all."""
        if self.states[job.number] == RUNS:
            return
        done = job.last_epoch()
        self.states[job.number] = RUNS
        self.began[job.number] = (time.monotonic(), int(done["epoch"]) if done else 0)
        self.epochs[job.number] = epochs
        self.say(job, f"goes on after epoch {done['epoch']}" if done else "begins")

    def ends(self, job: Job, error: str | None) -> None:
        results = job.results() or {}
        self.states[job.number] = FAILED if error else PRUNED if results.get("pruned") else DONE
        if job.number in self.began:
            self.took.append(time.monotonic() - self.began[job.number][0])
        accuracy = f"  val/accuracy {results['val/accuracy']:.4f}" if results else ""
        self.say(job, error or f"{self.states[job.number]}{accuracy}  {results['seconds']:.0f} s")

    def was_done(self, job: Job) -> None:
        self.states[job.number] = DONE
        self.say(job, "was done before")

    def say(self, job: Job, what: str) -> None:
        if not self.console.is_terminal:
            say(f"job {job.number}  {job}  {what}")

    def refresh(self) -> None:
        if self.console.is_terminal:
            self.live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """All that run or failed, and as many of the others as the terminal has lines for."""
        counts = {state: list(self.states.values()).count(state) for state in STYLES}
        counts[WAITS] += self.total - len(self.jobs)
        caption = "  ".join(f"{count} {state}" for state, count in counts.items() if count)
        table = Table(box=None, caption=f"{caption}  {self.left()}", caption_justify="left")
        keys = list(self.jobs[0].swept) if self.jobs else []
        for name in ("job", *keys, "state", "epoch", "val/accuracy", "left"):
            table.add_column(name, justify="left" if name in (*keys, "state") else "right")
        room = max(self.console.height - 4, 8)
        weight = {RUNS: 0, FAILED: 1, DONE: 2, PRUNED: 3, WAITS: 4}
        shown = sorted(self.jobs, key=lambda job: (weight[self.states[job.number]], -job.number))[:room]
        for job in sorted(shown, key=lambda job: job.number):
            table.add_row(*self.row(job), style=STYLES[self.states[job.number]])
        return table

    def row(self, job: Job) -> list[str]:
        state, last = self.states[job.number], job.last_epoch()
        epoch, accuracy, left = "", "", ""
        if last:
            accuracy = f"{float(last.get('val/accuracy') or 'nan'):.4f}"
            epoch = last["epoch"]
        if state == RUNS:
            (start, before), epochs = self.began[job.number], self.epochs[job.number]
            done = int(epoch or 0)
            epoch = f"{done}/{epochs}"
            if done > before:
                left = duration((time.monotonic() - start) / (done - before) * (epochs - done))
        elif state in (DONE, PRUNED) and (results := job.results()):
            accuracy = f"{results['val/accuracy']:.4f}"
        return [str(job.number), *map(readable, job.swept.values()), state, epoch, accuracy, left]

    def left(self) -> str:
        states = list(self.states.values())
        waiting = self.total - sum(state not in (WAITS, RUNS) for state in states)
        if not self.took or not waiting:
            return ""
        return f"about {duration(waiting * sum(self.took) / len(self.took) / max(1, states.count(RUNS)))} left"

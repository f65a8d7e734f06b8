"""Shows the progress of a sweep: a live table of its jobs on a terminal, elsewhere a line when a job starts or ends."""

import time
from collections.abc import Sequence

import rich
from rich.live import Live
from rich.table import Table

from quadrant_lstm.run_folder import last_epoch
from quadrant_lstm.sweep.sweep_folder import Job, readable
from quadrant_lstm.text import duration, say

PENDING, RUNNING, FINISHED, PRUNED, FAILED = "pending", "running", "finished", "pruned", "failed"
STYLES = {RUNNING: "bold", FAILED: "red", FINISHED: "green", PRUNED: "yellow", PENDING: "dim"}  # by importance


class JobTable:
    """Shows the known jobs of `total`. `add` adds others when they are submitted."""

    def __init__(self, known: Sequence[Job], total: int):
        self.jobs, self.total = list(known), total
        self.states = {job.number: FINISHED if job.results() else PENDING for job in known}
        self.started: dict[int, tuple[float, int]] = {}  # time in seconds, and the last finished epoch at that time
        self.max_epochs: dict[int, int] = {}
        self.durations: list[float] = []  # seconds
        self.console = rich.get_console()
        self.live = Live(console=self.console, auto_refresh=False, transient=False)

    def __enter__(self) -> "JobTable":
        if self.console.is_terminal:
            self.live.start()
        for job in self.jobs:
            if self.states[job.number] == FINISHED:
                self.print_line(job, "finished before")
        return self

    def __exit__(self, *exception: object) -> None:
        self.refresh()
        self.live.stop()

    def add(self, job: Job, max_epochs: int) -> None:
        """Adds a submitted job, which may be known."""
        self.max_epochs[job.number] = max_epochs
        if job.number not in self.states:
            self.jobs.append(job)
            self.states[job.number] = PENDING

    def mark_running(self, job: Job) -> None:
        if self.states[job.number] == RUNNING:
            return
        last = last_epoch(job.folder)
        self.states[job.number] = RUNNING
        self.started[job.number] = (time.monotonic(), int(last["epoch"]) if last else 0)
        self.print_line(job, f"resumes after epoch {last['epoch']}" if last else "starts")

    def mark_ended(self, job: Job, error: str | None) -> None:
        results = job.results() or {}
        if job.number not in self.states:  # it could not be submitted
            self.jobs.append(job)
        self.states[job.number] = FAILED if error else PRUNED if results.get("pruned") else FINISHED
        if job.number in self.started:
            self.durations.append(time.monotonic() - self.started[job.number][0])
        accuracy = f"  val/accuracy {results['val/accuracy']:.4f}" if "val/accuracy" in results else ""
        self.print_line(job, error or f"{self.states[job.number]}{accuracy}  {results['seconds']:.0f} s")

    def print_line(self, job: Job, message: str) -> None:
        if not self.console.is_terminal:
            say(f"job {job.number}  {job}  {message}")

    def refresh(self) -> None:
        if self.console.is_terminal:
            self.live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """Shows as many jobs as the terminal has lines: those that run, then failed, newly finished and next ones."""
        counts = {state: list(self.states.values()).count(state) for state in STYLES}
        counts[PENDING] += self.total - len(self.jobs)
        caption = "  ".join(f"{count} {state}" for state, count in counts.items() if count)
        table = Table(box=None, caption=f"{caption}  {self.time_left()}", caption_justify="left")
        keys = list(self.jobs[0].swept) if self.jobs else []
        for name in ("job", *keys, "state", "epoch", "val/accuracy", "time left"):
            table.add_column(name, justify="left" if name in (*keys, "state") else "right")
        num_lines = max(self.console.height - 4, 8)

        def importance(job: Job) -> tuple[int, int]:
            state = self.states[job.number]
            return list(STYLES).index(state), job.number if state == PENDING else -job.number

        ranked = sorted(self.jobs, key=importance)
        for job in sorted(ranked[:num_lines], key=lambda job: job.number):
            table.add_row(*self.row(job), style=STYLES[self.states[job.number]])
        return table

    def row(self, job: Job) -> list[str]:
        state, last, time_left = self.states[job.number], last_epoch(job.folder) or {}, ""
        epoch = last.get("epoch", "")
        accuracy = f"{float(last['val/accuracy']):.4f}" if last and last.get("val/accuracy") else ""
        if state == RUNNING:
            (start, before), max_epochs = self.started[job.number], self.max_epochs[job.number]
            finished = int(epoch or 0)
            epoch = f"{finished}/{max_epochs}"
            if finished > before:
                time_left = duration((time.monotonic() - start) / (finished - before) * (max_epochs - finished))
        elif state in (FINISHED, PRUNED) and "val/accuracy" in (results := job.results() or {}):
            accuracy = f"{results['val/accuracy']:.4f}"
        return [str(job.number), *map(readable, job.swept.values()), state, epoch, accuracy, time_left]

    def time_left(self) -> str:
        """Estimates the remaining time of the sweep from the mean duration of the jobs that have ended."""
        states = list(self.states.values())
        remaining = self.total - sum(state not in (PENDING, RUNNING) for state in states)
        if not self.durations or not remaining:
            return ""
        mean = sum(self.durations) / len(self.durations)
        return f"about {duration(remaining * mean / max(1, states.count(RUNNING)))} left"

"""Runs a peer in a process of its own, which reads commands from stdin and answers on stdout, in lines of JSON.

The command {"do": "train", "batch": 64, "steps": 40} gets the answer {"seconds": 0.84, "peak": 512000000}; the peak is
the process's largest memory so far, in bytes.
"""

import json
import os
import resource
import subprocess
import sys
from typing import Any


class Worker:
    """Starts the process and sends it commands. Raises WorkerError with the reason if the peer cannot be built."""

    def __init__(self, peer: str):
        command = [sys.executable, "-m", __name__, peer]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""} if "TensorFlow" in peer else {}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | quiet,
        )  # fmt: skip
        self.answer()

    def ask(self, do: str, batch: int, steps: int) -> dict[str, float]:
        assert self.process.stdin
        print(json.dumps({"do": do, "batch": batch, "steps": steps}), file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"failed": f"its process ended with {self.process.wait()}"}
        if "failed" in answer:
            raise WorkerError(answer["failed"])
        return answer

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class WorkerError(Exception):
    pass


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    try:
        from quadrant_lstm.benchmark.peers import PEERS

        peer = PEERS[name]()
        print("{}", file=answers, flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            seconds = getattr(peer, command["do"])(command["batch"], command["steps"])
            peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps({"seconds": seconds, "peak": peak}), file=answers, flush=True)
    except ImportError as error:
        print(json.dumps({"failed": f'{error.name} is not installed; pip install -e ".[bench]"'}), file=answers)
    except Exception as error:
        print(json.dumps({"failed": f"{type(error).__name__}: {error}".partition("\n")[0]}), file=answers)


if __name__ == "__main__":
    main(sys.argv[1])

"""Measures a predictor, and the web service of docs/serve.md: with 1, 2 and 8 threads, each classifies the files of a
folder several times.

RUN=RUN_FOLDER python examples/measure_service.py http://localhost:8000 FOLDER
"""

import os
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from quadrant_lstm import load_predictor


def send(address: str, file: Path) -> bytes:
    request = urllib.request.Request(f"{address}/{file.name}", file.read_bytes(), method="PUT")
    with urllib.request.urlopen(request) as answer:
        return answer.read()


def seconds_of(classify: Callable, file: Path) -> float:
    start = time.perf_counter()
    classify(file)
    return time.perf_counter() - start


def main(address: str, folder: str, num_requests: int = 200) -> None:
    files = sorted(Path(folder).iterdir())
    files *= -(-num_requests // len(files))
    for name, classify in {"predictor": load_predictor(os.environ["RUN"]), "service": partial(send, address)}.items():
        for at_once in (1, 2, 8):
            start = time.perf_counter()
            with ThreadPoolExecutor(at_once) as pool:
                seconds = sorted(pool.map(partial(seconds_of, classify), files))
            rate = len(files) / (time.perf_counter() - start)
            p99 = 1000 * seconds[int(0.99 * len(seconds))]
            print(f"{name}, {at_once} at once: {rate:.1f} per second, p99 {p99:.0f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Connects to the store of torchrun's agents, in which its processes exchange texts."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from quadrant_lstm.errors import UserError

TIMEOUT = timedelta(seconds=120)  # for each process to start, and for the first one to check the config


class Store:
    """The store at the address that torchrun gives. `serves` says whether this process has to serve it to the others.

    Raises UserError if the store cannot be reached.
    """

    def __init__(self, serves: bool):
        from torch.distributed import TCPStore

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        with errors_explained(f"the store at {address}:{port}"):
            self.tcp: Any = TCPStore(address, port, is_master=serves, wait_for_workers=False, timeout=TIMEOUT)

    def set(self, key: str, text: str) -> None:
        self.tcp.set(key, text)

    def has(self, key: str) -> bool:
        return self.tcp.check([key])

    def get(self, key: str, rank: int, timeout: timedelta | None = None, failed: str | None = None) -> str:
        """Waits for a text that the process of that rank sets. It asks again and again, because torch's own way of
        waiting keeps Python from handling SIGTERM. Raises UserError with the text of the key `failed`, if it is set.
        """
        end = deadline(timeout)
        with errors_explained("the store"):
            while not self.has(key):
                if failed:
                    self.check(failed)
                if time.monotonic() > end:
                    raise no_answer(f"rank {rank}", "it has not come this far", timeout)
                time.sleep(0.02)
            return self.tcp.get(key).decode()

    def check(self, failed: str) -> None:
        """Raises UserError with the text of that key, if it is set."""
        if self.has(failed):
            raise UserError(self.tcp.get(failed).decode())

    def is_first(self, key: str) -> bool:
        """Tells whether no process has asked this about the same key."""
        return self.tcp.add(key, 1) == 1

    def under(self, prefix: str) -> Any:
        """Returns a store of torch whose keys begin with the prefix."""
        from torch.distributed import PrefixStore

        return PrefixStore(prefix, self.tcp)


def deadline(timeout: timedelta | None = None) -> float:
    return time.monotonic() + (timeout or TIMEOUT).total_seconds()


@contextmanager
def errors_explained(store: str) -> Iterator[None]:
    """Raises UserError if the store cannot be reached, or not within TIMEOUT."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"torchrun: {store} cannot be reached ({reason}); restart torchrun on all machines.") from error


def no_answer(source: str, reason: str, timeout: timedelta | None = None) -> UserError:
    seconds = (timeout or TIMEOUT).total_seconds()
    return UserError(
        f"torchrun: {source} did not answer within {seconds:.0f} s ({reason}); restart torchrun on all machines."
    )

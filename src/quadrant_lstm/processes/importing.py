"""Lets Ctrl-C and SIGTERM end a process while it imports torch and Lightning, which takes seconds. Imports neither."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any, NoReturn


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Wraps imports. The process ends without raising an exception, because some libraries catch all of them."""

    def end(signum: int, frame: Any) -> NoReturn:
        os.write(2, b"interrupted\n")
        os._exit(128 + signum)

    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    for signum, handler in handlers.items():
        if handler != signal.SIG_IGN:
            signal.signal(signum, end)
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)

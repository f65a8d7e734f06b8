"""Defines the error of a user's mistake: one line that names the key or file, the value, the rule and the remedy."""

import contextlib
import errno
from collections.abc import Iterator

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errno of an OSError: disk full, over quota, read-only


class UserError(Exception):
    """Ends a command with exit status 2 and this text as the only line on stderr; in a sweep it fails one job."""

    def __init__(self, text: object):
        super().__init__(" ".join(str(text).split()))


@contextlib.contextmanager
def needs_extra(key: str, extra: str) -> Iterator[None]:
    """Wraps imports of packages that only an extra of this project installs, for what `key` asks for."""
    try:
        yield
    except ModuleNotFoundError as error:
        install = f'python -m pip install -e ".[{extra}]"'
        raise UserError(f"{key}: needs {error.name}, which is not installed; install it with {install}") from error

"""Defines the error of a user's mistake: one line that names the key or file, the value, the rule and the remedy."""

import contextlib
import errno
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")
# errno of an OSError that the user can correct: of a disk that is full, over quota or read-only, and of a path
FILE_ERRNOS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS,
    errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR,
)  # fmt: skip


class UserError(Exception):
    """Ends a command with exit status 2 and this text as the only line on stderr; in a sweep it fails one job."""

    def __init__(self, text: object):
        super().__init__(printable(" ".join(str(text).split())))


class CommandError(UserError):
    """A mistake that is not of the file that was being read: every other file would cost the same line."""


def as_text(name: Path | str) -> str:
    """Returns the name of a file for people and text files: bytes that are not UTF-8 are written like \\xe9."""
    return re.sub("[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", str(name))


def printable(text: str, kept: str = "") -> str:
    """Replaces what could steer a terminal, such as escape codes, which names of files and classes may contain."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c in kept else "?" for c in as_text(text))


def place_in_own_code(error: BaseException | None) -> str:
    """Returns where code that the user wrote raised an error, e.g. "/home/me/net.py, line 7: ", else nothing."""
    if error is None:
        return ""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: "
    others = (sysconfig.get_path("stdlib"), str(Path(__file__).parent), "<")  # of Python and of this project
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [place for place in places if not place[0].startswith(others) and not INSTALLED.search(place[0])]
    return "{}, line {}: ".format(*own[-1]) if own else place_in_own_code(error.__cause__)


def with_type(error: BaseException) -> str:
    """Returns e.g. "KeyError: 'units'", because the text of an error may mean nothing without its type."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def reason_of(error: Exception) -> str:
    """Returns in one line what a decoder says of a file: errors of decoders have many types, some without a text."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]  # of OSError, and of PyAV's errors
    return reason.rstrip(".") or type(error).__name__


def and_contexts(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, the one during whose handling it was raised, and so on."""
    while error:
        yield error
        error = error.__context__


@contextlib.contextmanager
def needs_extra(key: str, extra: str) -> Iterator[None]:
    """Wraps imports of packages that only an extra of this project installs, for what `key` asks for."""
    try:
        yield
    except ModuleNotFoundError as error:
        install = f'python -m pip install -e ".[{extra}]"'
        raise CommandError(f"{key}: needs {error.name}, which is not installed; install it with {install}") from error

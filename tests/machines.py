"""Makes two machines of this one: network namespaces with addresses and host names of their own, joined by a cable."""

import contextlib
import os
import shutil
import socket
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HOSTS = Path("/etc/netns")  # its files replace those of /etc in the namespace of the same name


class Machine(NamedTuple):
    name: str
    prefix: tuple[str, ...] = ()  # the beginning of a command that runs on it


@contextlib.contextmanager
def two_machines() -> Iterator[list[Machine]]:
    """Needs root. Elsewhere, both are this machine, and a warning says so."""
    names = [f"quadrant-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        join(names)
        machines = [Machine(name, entering(name)) for name in names]
    except (OSError, subprocess.CalledProcessError) as error:
        warnings.warn(f"over localhost, because no network namespaces can be made: {error}", stacklevel=2)
        machines = [Machine("localhost"), Machine("localhost")]
    try:
        yield machines
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)
                shutil.rmtree(HOSTS / name)


def join(names: list[str]) -> None:
    addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
    for name in names:
        ip("netns", "add", name)
        (HOSTS / name).mkdir(parents=True)
        lines = ["127.0.0.1 localhost", *(f"{address} {host}" for host, address in addresses.items())]
        (HOSTS / name / "hosts").write_text("\n".join(lines) + "\n")
    one, other = names
    ip("link", "add", "cable", "netns", one, "type", "veth", "peer", "name", "cable", "netns", other)
    for name, address in addresses.items():
        ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
        for device in ("cable", "lo"):
            ip("-n", name, "link", "set", device, "up")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def entering(name: str) -> tuple[str, ...]:
    set_name = 'hostname "$0" && exec "$@"'
    return ("ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", set_name, name)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]

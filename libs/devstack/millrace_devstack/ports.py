"""TCP ports of the loopback interface: find a free one, and say who holds one that is not."""

import contextlib
import os
import secrets
import socket
from pathlib import Path

from millrace_devstack.errors import StackError

HOST = "127.0.0.1"
_LISTENING = "0A"
# From here to where the system takes the ports of outgoing connections from.
_FIRST = 10_240
_OUTGOING_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_OUTGOING_FIRST = 32_768
_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on now, another one each time this process asks. Another process may take it before you do:
    bind soon, and be ready to ask again.

    None that the system gives to outgoing connections: one of those would hold it while a server that is killed and
    started again wants it back, be it a client's that tries to reach this very server."""
    span = max(1, outgoing_first() - _FIRST)
    while (port := _FIRST + secrets.randbelow(span)) in _given or not is_free(port):
        pass
    _given.add(port)
    return port


def outgoing_first() -> int:
    """The lowest port that the system gives to outgoing connections."""
    try:
        return int(_OUTGOING_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _OUTGOING_FIRST


def is_free(port: int) -> bool:
    """Whether the port can be bound now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def require_free(port: int, *, what: str, fix: str) -> None:
    """Raise StackError naming the holder and the fix when the port is taken."""
    if not is_free(port):
        holder = holder_of(port)
        raise StackError(f"port {port}, wanted for {what}, is taken{f' by {holder}' if holder else ''}. {fix}")


def holder_of(port: int) -> str | None:
    """`name (pid n)` of the process listening on the port, where the system lets us see it."""
    inodes = {inode for table in ("/proc/net/tcp", "/proc/net/tcp6") for inode in _listeners(table, port)}
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(os.readlink(fd) in wanted for fd in (entry / "fd").iterdir()):
                return f"{(entry / 'comm').read_text().strip()} (pid {entry.name})"
    return None


def _listeners(table: str, port: int) -> list[str]:
    try:
        rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port]

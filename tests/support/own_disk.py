"""A small disk of its own for whoever shall run out of space: a tmpfs of fixed size in a mount namespace of its own.

Only this process's main thread and the children it starts see the mount; with the last of them it is gone. Call from
the main thread. Where the system does not permit it, `refusal` says why.
"""

import ctypes
import functools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNS = 0x0002_0000
CHUNK = bytes(65_536)


@functools.cache
def refusal() -> str | None:
    """Enter the namespace, once; None when it stands, else why there can be none."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        return f"no mount namespace here: {os.strerror(ctypes.get_errno())}"
    done = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, text=True, check=False)
    return f"no private mounts here: {done.stderr.strip()}" if done.returncode else None


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted disk. Full is full for everybody: root has no reserve on it."""

    at: Path

    @property
    def _ballast(self) -> Path:
        return self.at / "ballast"

    def fill(self) -> None:
        """Leave not one byte."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(CHUNK)
            except OSError:
                return

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def own_disk(at: Path, *, size_mb: int) -> Iterator[Disk]:
    """A fresh disk mounted at this folder as long as the block."""
    assert refusal() is None, refusal()
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0755", "tmpfs", str(at)], check=True)
    try:
        yield Disk(at)
    finally:
        # Lazily: whoever still runs there keeps it until it ends.
        subprocess.run(["umount", "--lazy", str(at)], check=True)

"""A JVM's start-up image (ahead-of-time cache): the broker's classes already loaded and linked, made once a machine.

It halves the time and the CPU of every start. It is derived data: one that is missing or damaged is made anew, and a
start without it is slower, never wrong. Not here: how the JVM is run to make one (`kafka`).
"""

import asyncio
import contextlib
import fcntl
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from millrace_devstack import processes
from millrace_devstack.errors import StackError

OTHER_MAKER_TIMEOUT_S = 120.0


async def ensure(image: Path, make: Callable[[Path], Awaitable[None]]) -> Path | None:
    """The image, made by `make` (which writes the file it is given) where there is no good one. None: go without."""
    if await asyncio.to_thread(_is_good, image):
        return image
    try:
        image.parent.mkdir(parents=True, exist_ok=True)
        async with _alone(image.with_suffix(".lock")) as alone:
            if not alone:
                return None
            if await asyncio.to_thread(_is_good, image):
                return image
            part = image.with_suffix(".part")
            try:
                await make(part)
                await asyncio.to_thread(_keep, part, image)
            finally:
                part.unlink(missing_ok=True)
    except (OSError, StackError):
        # A full disk, a cache that is read-only, a JVM that makes none: the plain start tells what is wrong, if it is.
        return None
    return image


@asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[bool]:
    with path.open("ab") as lock:
        yield await processes.until(lambda: _locked(lock.fileno()), timeout_s=OTHER_MAKER_TIMEOUT_S)


def _locked(descriptor: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _sum_file(image: Path) -> Path:
    return image.with_suffix(".sha256")


def _keep(part: Path, image: Path) -> None:
    _sum_file(image).write_text(_digest(part))
    part.replace(image)


def _is_good(image: Path) -> bool:
    # The JVM maps the file without looking: a damaged one would crash it.
    try:
        return _digest(image) == _sum_file(image).read_text()
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Child processes that cannot outlive their parent.

Every child leads a session of its own, so Ctrl-C in the terminal reaches only the parent, which stops the children in
its own order; and every child is bound to the parent (`launch`), so nothing stays when the parent is killed.
Start children from the main thread: the kernel's binding is to the thread that forked.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from millrace_devstack import launch
from millrace_devstack.errors import StackError

LOG_LINES_SHOWN = 15
LOG_BYTES_SCANNED = 65_536
PROBE_EVERY_S = 0.02


class Child:
    """One running process and the file its output goes to."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Return when it has ended. May be awaited by several."""
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send to the process alone; one that has ended is left in peace."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout_s: float = 20.0) -> int:
        """Ask it to end, wait, and kill what is left of its group when the time is over."""
        self.send(number)
        try:
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        except TimeoutError:
            pass
        return await self.kill()

    async def kill(self) -> int:
        """SIGKILL to the whole group, and wait. Its number is not touched once it has ended: it may be another's."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return await self._process.wait()

    def log_tail(self) -> str:
        """The end of its output, for messages."""
        return tail(self.log)


def tail(log: Path) -> str:
    """The last bytes of a log as text; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES_SCANNED))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def last_lines(text: str) -> str:
    """As much of a log as a message should show."""
    return "\n".join(text.strip().splitlines()[-LOG_LINES_SHOWN:])


async def spawn(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    user: str = launch.SAME_USER,
    death_signal: signal.Signals = signal.SIGKILL,
    cwd: Path | None = None,
    stdin: Path = Path(os.devnull),
) -> Child:
    """Start a command bound to this process. `user` is SAME_USER or `way:name` (see `launch`)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(death_signal)), user, "--"]
    with log.open("ab") as output, stdin.open("rb") as source:
        process = await asyncio.create_subprocess_exec(
            *launcher,
            *command,
            stdin=source,
            stdout=output,
            stderr=output,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
        )
    return Child(name, process, log)


async def until(holds: Callable[[], bool], *, timeout_s: float) -> bool:
    """Ask until it holds. False: the time is over. For things of the kernel that announce nothing (a pid, a lock)."""
    try:
        async with asyncio.timeout(timeout_s):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(PROBE_EVERY_S)
    except TimeoutError:
        return False
    return True


async def until_ready(child: Child, probe: Callable[[], Awaitable[bool]], *, timeout_s: float) -> bool:
    """Ask `probe` until it answers yes. False: the child ended first. Raises StackError when the time is over."""
    ended = asyncio.ensure_future(child.wait())
    try:
        async with asyncio.timeout(timeout_s):
            while not ended.done():
                if await probe():
                    return True
                await asyncio.wait({ended}, timeout=PROBE_EVERY_S)
            return False
    except TimeoutError:
        raise StackError(
            f"{child.name} did not answer within {timeout_s:.0f} s. Its log is {child.log}; it ends with:\n"
            f"{last_lines(child.log_tail())}"
        ) from None
    finally:
        ended.cancel()

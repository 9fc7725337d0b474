"""Keep a process running: start it, start it again when it dies, know whether it is ready.

One keeper owns one process. Not here: which processes there are, and the order in which they end (`stack`).
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from millrace_devstack import probes, processes
from millrace_devstack.errors import StackError

RESTART_AFTER_S = (0.1, 0.5, 1.0, 2.0, 5.0)
# One that lived this long begins again with the first wait.
STEADY_S = 30.0
# One that dies this often without having been ready once will not start at all.
DEATHS_MAX_BEFORE_READY = 5

Changed = Callable[[], None]


class Keeper:
    """A service: its command, its environment, its ops port. `changed` is called when its pid changes."""

    def __init__(
        self, name: str, command: Sequence[str], *, env: dict[str, str], ops_port: int, log: Path, changed: Changed
    ) -> None:
        self.name = name
        self.ops_port = ops_port
        self._command = command
        self._env = env
        self._log = log
        self._changed = changed
        self._child: processes.Child | None = None
        self._was_ready = False
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """None between a death and the next start."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def run(self) -> None:
        """Until cancelled. Raises StackError when it cannot be started at all."""
        loop = asyncio.get_running_loop()
        deaths = 0
        while not self._ended_for_good():
            began = loop.time()
            self._child = await processes.spawn(self.name, self._command, log=self._log, env=self._env)
            self._changed()
            code = await self._child.wait()
            if self._ended_for_good():
                return
            deaths = 1 if loop.time() - began > STEADY_S else deaths + 1
            if deaths >= DEATHS_MAX_BEFORE_READY and not self._was_ready:
                raise StackError(
                    f"{self.name} does not start (exit {code}, {deaths} times). Its log is {self._log}; it ends with:\n"
                    f"{processes.last_lines(self._child.log_tail())}"
                )
            await asyncio.sleep(RESTART_AFTER_S[min(deaths, len(RESTART_AFTER_S)) - 1])

    def _ended_for_good(self) -> bool:
        return self._stopping

    async def not_ready(self) -> str | None:
        """Why it is not ready, None when it is."""
        if self.pid is None:
            return "not running; it is being started"
        answer = await probes.http_get(self.ops_port, "/readyz")
        if answer is None:
            return "starting: its ops port does not answer yet"
        status, body = answer
        if status != 200:
            return body.decode("utf-8", "replace").strip() or f"/readyz answers {status}"
        self._was_ready = True
        return None

    async def stop(self, *, timeout_s: float) -> None:
        """End it for good."""
        self._stopping = True
        if self._child is not None:
            await self._child.stop(timeout_s=timeout_s)

    async def kill(self) -> None:
        """End it for good, now."""
        self._stopping = True
        if self._child is not None:
            await self._child.kill()

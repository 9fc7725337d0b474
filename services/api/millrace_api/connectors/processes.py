"""Connectors in processes of their own: found at the start, begun when they are first called, begun anew after a death.

A connector that hangs is ended when its call's time is over, one that dies takes its own call with it, and the next
call begins another process; nothing of it reaches this one but lines of JSON, which are bounded and checked: whatever
is not the answer to the question that was just asked, by its number, is taken for the process's death. Calls of one
connector are made one after the other; who waits is bounded, in all and for each account. Not here: what an answer
means (`application.connecting`).
"""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from millrace_api.application.connecting import Known, NotAnswered
from millrace_api.connectors import host
from millrace_core import limits
from millrace_core.connectors import REMOTE, is_connector_name

SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True, slots=True)
class Running:
    """A connector's live process."""

    process: asyncio.subprocess.Process
    calls: asyncio.StreamWriter
    answers: asyncio.StreamReader


class ConnectorProcess:
    """One connector. Safe for concurrent use within a loop."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        call_s: float = limits.CONNECTOR_CALL_S_MAX,
        start_s: float = limits.CONNECTOR_START_S_MAX,
    ) -> None:
        self.known = Known(name)
        self._folder = folder
        self._call_s = call_s
        self._start_s = start_s
        self._turn = asyncio.Lock()
        self._waiting: Counter[str] = Counter()
        self._running: Running | None = None
        self._number = 0
        """Of the question asked last. That of no process begins anew, so no answer fits two."""

    async def call(self, call: str, arguments: Mapping[str, Any], *, account: str) -> Any:
        """What the connector answers. Raises NotAnswered."""
        if (
            self._waiting.total() >= limits.CONNECTOR_WAITING_MAX
            or self._waiting[account] >= limits.CONNECTOR_WAITING_OF_ACCOUNT_MAX
        ):
            raise NotAnswered("busy", "too many calls wait for this connector: try again shortly")
        self._waiting[account] += 1
        try:
            async with self._turn:
                return await self._asked({"call": call, "arguments": arguments})
        finally:
            self._waiting[account] -= 1
            self._waiting += Counter()  # forget who waits no more

    async def look(self) -> None:
        """Begin it, to learn what it says of itself, and end it: it costs memory until it is called. Its failure is
        kept in `known`."""
        async with self._turn:
            with contextlib.suppress(NotAnswered):
                await self._began()
            await self.stop()

    async def stop(self) -> None:
        """End its process. Safe to repeat."""
        running, self._running = self._running, None
        if running is not None:
            await _ended(running)

    async def _asked(self, question: Mapping[str, Any]) -> Any:
        running = await self._began()
        self._number += 1
        try:
            async with asyncio.timeout(self._call_s):
                running.calls.write(orjson.dumps({"number": self._number, **question}) + b"\n")
                await running.calls.drain()
                answer = _read(await running.answers.readline(), number=self._number)
        except TimeoutError:
            await self.stop()
            raise NotAnswered("timed_out", f"the connector did not answer within {self._call_s:g} s") from None
        except asyncio.CancelledError:
            await self.stop()  # its answer would come to the next call
            raise
        except Exception as error:
            await self.stop()
            raise NotAnswered("failed", "the connector's process died, or answered out of turn or too much") from error
        return _result(answer)

    async def _began(self) -> Running:
        if self._running is not None and self._running.process.returncode is None:
            return self._running
        await self.stop()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-B", "-m", host.__name__, str(self._folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            cwd=self._folder,
            limit=limits.CONNECTOR_ANSWER_BYTES_MAX,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        running = Running(process, process.stdin, process.stdout)
        try:
            async with asyncio.timeout(self._start_s):
                described = _result(_read(await running.answers.readline(), number=host.UNASKED))
            self.known = _known(self.known.name, described)
        except asyncio.CancelledError:
            await _ended(running)
            raise
        except Exception as error:
            await _ended(running)
            reason = str(error) if isinstance(error, NotAnswered) else "it does not begin"
            self.known = Known(self.known.name, error=reason)
            raise NotAnswered("failed", f"the connector cannot be begun: {reason}") from None
        self._running = running
        return running


class Connectors:
    """All connectors of this process. `directory` holds the operator's own, a folder each."""

    def __init__(self, directory: Path | None = None, *, call_s: float = limits.CONNECTOR_CALL_S_MAX) -> None:
        self._by_name = {
            name: ConnectorProcess(name, folder, call_s=call_s) for name, folder in folders(SHIPPED, directory).items()
        }

    def known(self) -> Sequence[Known]:
        """What there is."""
        return [one.known for one in self._by_name.values()]

    def has(self, name: str) -> bool:
        """Whether there is a connector of this name."""
        return name in self._by_name

    async def call(self, name: str, call: str, arguments: Mapping[str, Any], *, account: str) -> Any:
        """What a connector answers. Raises NotAnswered."""
        connector = self._by_name.get(name)
        if connector is None:
            raise NotAnswered("failed", f"there is no connector {name!r} any more")
        return await connector.call(call, arguments, account=account)

    async def run(self, stop: asyncio.Event) -> None:
        """The worker: looks at each connector once, and ends all processes at the end."""
        try:
            for connector in self._by_name.values():
                await connector.look()
            await stop.wait()
        finally:
            for connector in self._by_name.values():
                await connector.stop()


def folders(*directories: Path | None) -> dict[str, Path]:
    """Every folder that is a connector, by name; a later directory's stands over an earlier one's."""
    found: dict[str, Path] = {}
    for directory in directories:
        if directory is None or not directory.is_dir():
            continue
        for folder in sorted(directory.iterdir()):
            if is_connector_name(folder.name) and folder.name != REMOTE and (folder / host.FILE).is_file():
                found[folder.name] = folder
    return found


class _OutOfTurn(Exception):
    """Not the answer to what was asked: the process died, or its connector wrote where only the host does."""


def _read(line: bytes, *, number: int) -> Mapping[str, Any]:
    """The answer to the question of this number: `{result}` or `{error}`. Raises _OutOfTurn, ValueError."""
    answer = orjson.loads(line) if line.endswith(b"\n") else None
    if not isinstance(answer, dict) or answer.get("number") != number or not {"result", "error"} & answer.keys():
        raise _OutOfTurn
    return answer


def _result(answer: Mapping[str, Any]) -> Any:
    if "error" in answer:
        raise NotAnswered("failed", f"the connector failed: {answer['error']}"[: limits.CONNECTOR_ERROR_CHARS_MAX])
    return answer["result"]


def _known(name: str, described: Mapping[str, Any]) -> Known:
    cut = limits.CONNECTOR_ERROR_CHARS_MAX
    return Known(
        name, described["title"][:cut], described["description"][:cut], tuple(described["secrets"][:16]), is_up=True
    )


async def _ended(running: Running) -> None:
    with contextlib.suppress(ProcessLookupError):
        running.process.kill()
    await running.process.wait()
    running.calls.close()

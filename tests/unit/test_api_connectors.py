"""A connector in a process of its own: what it does wrong, it does to itself."""

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

import pytest

from millrace_api.application.connecting import NotAnswered
from millrace_api.connectors.processes import Connectors
from tests.support.waiting import eventually

METHODS = """
import os, sys, time
class Own:
    title = "Own"
    secrets = ("s",)
    def identity_providers(self, connection): return [{"pid": os.getpid(), "environment": sorted(os.environ)}]
    def context_providers(self, connection): print("noise"); return []
    def register_actions(self, connection): os._exit(3)
    def subscribers(self, connection): time.sleep(60)
    def handle_webhook(self, connection, request):
        match request.body:
            case b"raise": raise RuntimeError(connection.secrets["s"])
            case b"much": return [{"x": "y" * 5_000_000}]
            case b"odd": return {1, 2}
            case b"list": os.write(3, b"[]\\n")
            case b"text": os.write(3, b'"result"\\n')
            case b"null": os.write(3, b"null\\n")
            case b"bare": os.write(3, b'{}\\n')
            case b"forged": os.write(3, b'{"result": []}\\n')
            case b"numbered": os.write(3, b'{"number": 1}\\n')
            case b"twice": os.write(3, b'{"number": 1, "result": "first"}\\n')
            case b"memory": return [len("x" * 2_000_000_000)]
        return [{"event": "a.b", "payload": {"body": request.body.decode(), "s": connection.secrets["s"]}}]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, source in (("own", METHODS), ("broken", "1 / 0"), ("empty", "x = 1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "connector.py").write_text(source)
    return tmp_path


async def ask(connectors: Connectors, call: str, *, account: str = "a") -> Any:
    given = {"connection": {"id": "con_1", "config": {}, "secrets": {"s": "x"}}}
    return await connectors.call("own", call, given, account=account)


async def post(connectors: Connectors, body: str) -> Any:
    given = {
        "connection": {"id": "con_1", "config": {}, "secrets": {"s": "x"}},
        "request": {"method": "POST", "headers": {}, "query": "", "body": body},
    }
    return await connectors.call("own", "handle_webhook", given, account="a")


async def test_connectors_are_found_and_their_failures_are_theirs(directory: Path) -> None:
    connectors = Connectors(directory, call_s=1.0)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(connectors.run(stop))
        await eventually(lambda: all(one.is_up or one.error for one in connectors.known()), what="all were looked at")
        known = {one.name: one for one in connectors.known()}
        assert (known["own"].title, known["own"].secrets, known["own"].is_up) == ("Own", ("s",), True)
        assert known["stripe"].is_up
        assert "ZeroDivisionError" in (known["broken"].error or "")
        assert "one class" in (known["empty"].error or "")
        stop.set()


async def test_what_it_does_wrong_it_does_to_itself(directory: Path) -> None:
    connectors = Connectors(directory, call_s=1.0)
    try:
        (first,) = await ask(connectors, "identity_providers")
        assert not {name for name in first["environment"] if name.startswith("MILLRACE")}
        assert await ask(connectors, "context_providers") == []
        for call, how in (("register_actions", "failed"), ("subscribers", "timed_out")):
            with pytest.raises(NotAnswered) as failed:
                await ask(connectors, call)
            assert failed.value.how == how
            (again,) = await ask(connectors, "identity_providers")
            assert again["pid"] != first["pid"]
        for body, told in (("cmFpc2U=", "RuntimeError"), ("b2Rk", "no JSON"), ("bWVtb3J5", "MemoryError")):
            with pytest.raises(NotAnswered, match=told):
                await post(connectors, body)
        with pytest.raises(NotAnswered):
            await post(connectors, "bXVjaA==")
        assert await post(connectors, "aGk=") == [{"event": "a.b", "payload": {"body": "hi", "s": "x"}}]
        with pytest.raises(NotAnswered, match="no connector"):
            await connectors.call("gone", "subscribers", {}, account="a")
    finally:
        await stopped(connectors)


@pytest.mark.parametrize("line", ["list", "text", "null", "bare", "forged", "numbered"])
async def test_a_line_that_is_no_answer_is_its_death(directory: Path, line: str) -> None:
    connectors = Connectors(directory, call_s=5.0)
    try:
        with pytest.raises(NotAnswered) as failed:
            await post(connectors, encoded(line))
        assert failed.value.how == "failed"
        assert (await post(connectors, encoded("hi")))[0]["payload"]["body"] == "hi"
    finally:
        await stopped(connectors)


async def test_an_answer_of_an_earlier_call_is_never_taken_for_a_later_one(directory: Path) -> None:
    connectors = Connectors(directory, call_s=5.0)
    try:
        assert await post(connectors, encoded("twice")) == "first"
        with pytest.raises(NotAnswered):  # what waits to be read is the first call's other answer
            await post(connectors, encoded("second"))
        assert (await post(connectors, encoded("third")))[0]["payload"]["body"] == "third"
    finally:
        await stopped(connectors)


def encoded(body: str) -> str:
    return base64.b64encode(body.encode()).decode()


async def test_one_account_cannot_take_every_place(directory: Path) -> None:
    connectors = Connectors(directory, call_s=30.0)
    try:
        asked = [asyncio.ensure_future(ask(connectors, "subscribers")) for _ in range(17)]
        done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        error = refused.exception()
        assert isinstance(error, NotAnswered)
        assert error.how == "busy"
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
        assert await ask(connectors, "context_providers", account="b") == []
    finally:
        await stopped(connectors)


WORLD = """
import asyncio, sys
from pathlib import Path
from millrace_api.connectors.processes import Connectors
async def main():
    connectors = Connectors(Path(sys.argv[1]), call_s=60)
    given = {"connection": {"id": "con_1", "config": {}, "secrets": {}}}
    print((await connectors.call("own", "identity_providers", given, account="a"))[0]["pid"], flush=True)
    await connectors.call("own", "subscribers", given, account="a")
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel ends a child with its parent")
async def test_one_that_hangs_does_not_outlive_the_api(directory: Path) -> None:
    api = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORLD, str(directory), stdout=asyncio.subprocess.PIPE
    )
    assert api.stdout is not None
    child = int(await api.stdout.readline())
    api.kill()
    await api.wait()

    def is_over() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    await eventually(is_over, what="the child is over")


async def stopped(connectors: Connectors) -> None:
    over = asyncio.Event()
    over.set()
    await connectors.run(over)

"""The runner behind `make dev`, with stand-ins for the services (tests/support/standin): what it starts, keeps running,
tells, and leaves behind. Real servers under it: test_devstack_servers."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from millrace_devstack import ports
from tests.support.processes import has_ended
from tests.support.standin import SERVICES
from tests.support.waiting import eventually

READY_S = 60.0


class Runner:
    """One `make dev` in a home of its own. It is given servers, so it starts none."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.dev_json = home / "dev.json"
        self.env = {**os.environ, "MILLRACE_DEV_HOME": str(home), "MILLRACE_DEV_PORT": str(ports.free_port())}
        self.env |= {"MILLRACE_KAFKA": "127.0.0.1:1", "MILLRACE_POSTGRES": "postgresql://nobody@127.0.0.1:1/none"}
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.standin", "dev", env=self.env, stdout=-1, stderr=-1
        )

    async def ready(self) -> dict[str, Any]:
        await eventually(self.dev_json.exists, timeout_s=READY_S, what="dev.json")
        return self.told()

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.dev_json.read_text())
        return told

    async def ended(self) -> tuple[int, str, str]:
        async with asyncio.timeout(READY_S):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Runner]]]:
    runners: list[Runner] = []

    async def begin() -> Runner:
        one = Runner(tmp_path / "home")
        runners.append(one)
        await one.start()
        return one

    yield begin
    for one in runners:
        if one.process.returncode is None:
            one.process.kill()
            await one.process.communicate()


Begin = Callable[[], Awaitable[Runner]]


async def _get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_everything_is_told_once_everything_is_ready(runner: Begin) -> None:
    dev = await runner()
    told = await dev.ready()
    assert set(told) == {"base_url", "console_url", "kafka", "postgres", "metrics", "pids", "keys"}
    assert set(told["pids"]) == {*SERVICES, "kafka", "postgres"}
    assert set(told["metrics"]) == set(SERVICES)
    assert set(told["keys"]) == {"ingest", "ops", "intake", "agents", "agents_test", "automation"}
    assert told["kafka"] == "127.0.0.1:1"
    assert told["pids"]["kafka"] is None, "a server that was given is nobody's child"
    assert (await _get(f"{told['base_url']}/readyz"))[0] == 200
    assert await _get(f"{told['base_url']}/ingest/event") == (200, "gateway /ingest/event")
    assert await _get(f"{told['base_url']}/v1/runs?limit=1") == (200, "api /v1/runs?limit=1")
    tools = (dev.home / "tools.txt").read_text()
    assert "topics" in tools
    assert f"dev-account --keys-file {dev.home / 'keys.json'}" in tools
    assert tools.index("migrate") < tools.index("dev-account")


async def test_nothing_is_told_while_a_service_is_not_ready(runner: Begin, tmp_path: Path) -> None:
    unready = tmp_path / "home" / "matcher.unready"
    unready.parent.mkdir()
    unready.touch()
    dev = await runner()
    url = f"http://127.0.0.1:{dev.env['MILLRACE_DEV_PORT']}/readyz"

    async def only_the_matcher_is_missing() -> bool:
        try:
            status, text = await _get(url)
        except aiohttp.ClientError:
            return False
        return status == 503 and list(json.loads(text)["reasons"]) == ["matcher"]

    await eventually(only_the_matcher_is_missing, timeout_s=READY_S)
    assert not dev.dev_json.exists()
    unready.unlink()
    await dev.ready()
    assert (await _get(url))[0] == 200


async def test_a_killed_service_comes_back_under_another_pid(runner: Begin) -> None:
    dev = await runner()
    told = await dev.ready()
    os.kill(told["pids"]["api"], signal.SIGKILL)

    def another() -> bool:
        return dev.told()["pids"]["api"] not in (None, told["pids"]["api"])

    await eventually(another)

    async def answers() -> bool:
        return (await _get(f"{told['base_url']}/v1/runs"))[0] == 200

    await eventually(answers)
    assert {name: pid for name, pid in dev.told()["pids"].items() if name != "api"} == {
        name: pid for name, pid in told["pids"].items() if name != "api"
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_orderly_end_leaves_nothing_running_and_keeps_the_state(runner: Begin, number: signal.Signals) -> None:
    dev = await runner()
    told = await dev.ready()
    dev.process.send_signal(number)
    code, out, err = await dev.ended()
    assert (code, err) == (0, "")
    assert "stopping" in out
    assert not dev.dev_json.exists()
    for name in SERVICES:
        assert has_ended(told["pids"][name])
    again = await runner()
    told_again = await again.ready()
    assert told_again["keys"] == told["keys"]
    assert told_again["metrics"] == told["metrics"], "ports persist where they are free"


async def test_a_runner_that_is_killed_takes_everything_along_and_hinders_nobody(runner: Begin) -> None:
    dev = await runner()
    told = await dev.ready()
    dev.process.kill()
    await dev.ended()
    await eventually(lambda: all(has_ended(told["pids"][name]) for name in SERVICES))
    again = await runner()
    await eventually(lambda: again.dev_json.exists() and again.told()["pids"] != told["pids"], timeout_s=READY_S)


async def test_a_second_runner_says_so_and_harms_nothing(runner: Begin) -> None:
    dev = await runner()
    told = await dev.ready()
    second = await runner()
    code, _, err = await second.ended()
    assert code == 1
    assert f"running already (pid {dev.process.pid}), at {told['base_url']}" in err
    assert dev.told() == told


async def test_a_service_that_cannot_start_ends_the_run_with_the_end_of_its_log(runner: Begin, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "matcher.broken").touch()
    code, _, err = await (await runner()).ended()
    assert code == 1
    assert "matcher does not start (exit 1, 5 times)" in err
    assert "broken on purpose" in err


async def test_a_command_that_fails_ends_the_run_with_its_output(runner: Begin, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "tool.broken").touch()
    code, _, err = await (await runner()).ended()
    assert code == 1
    assert "the tool is broken on purpose" in err


async def test_a_front_port_that_is_taken_is_named_with_its_holder(tmp_path: Path) -> None:
    one = Runner(tmp_path / "home")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        one.env["MILLRACE_DEV_PORT"] = str(taken.getsockname()[1])
        await one.start()
        code, _, err = await one.ended()
    assert code == 1
    assert f"taken by {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})" in err
    assert "MILLRACE_DEV_PORT" in err

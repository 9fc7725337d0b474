"""Waiting for the read models: who waits, for what, how long, and how many questions it takes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from millrace_api.application.arrivals import Arrivals, Part
from millrace_api.application.problems import Unavailable
from millrace_core.errors import Retry
from tests.support.waiting import eventually

EVENTS = ("events", 0)


@dataclass
class Log:
    """The two that are asked."""

    end: dict[Part, int] = field(default_factory=dict)
    next: dict[Part, int] = field(default_factory=dict)
    ends_asked: int = 0
    reached_asked: int = 0
    away: bool = False

    async def ends(self) -> dict[Part, int]:
        self.ends_asked += 1
        if self.away:
            raise Retry("away")
        return dict(self.end)

    async def reached(self) -> dict[Part, int]:
        self.reached_asked += 1
        return dict(self.next)


@asynccontextmanager
async def running(log: Log, *, wait_s: float = 0.3) -> AsyncIterator[Arrivals]:
    arrivals, stop = Arrivals(ends=log.ends, reached=log.reached, wait_s=wait_s), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(arrivals.run(stop))
        yield arrivals
        stop.set()


async def test_it_waits_for_the_ends_of_the_moment_it_was_asked() -> None:
    log = Log(end={EVENTS: 10}, next={EVENTS: 9})
    async with running(log, wait_s=5) as arrivals:
        asked = asyncio.ensure_future(arrivals.caught_up())
        await eventually(lambda: log.reached_asked >= 3)
        assert not asked.done()
        log.end[EVENTS] = 1_000  # what comes later is not waited for
        log.next[EVENTS] = 10
        assert await asked is True


async def test_it_gives_up_in_time() -> None:
    log = Log(end={EVENTS: 10}, next={EVENTS: 9})
    async with running(log, wait_s=0.1) as arrivals:
        assert await arrivals.caught_up() is False
        assert await arrivals.passed({EVENTS: 9}) is False


async def test_a_partition_the_projector_has_never_seen_is_not_passed() -> None:
    log = Log(end={EVENTS: 1}, next={})
    async with running(log, wait_s=0.1) as arrivals:
        assert await arrivals.caught_up() is False
        assert await arrivals.passed({("control", 0): 7}) is True


async def test_an_offset_is_passed_when_the_next_one_is_due() -> None:
    log = Log(next={EVENTS: 7})
    async with running(log) as arrivals:
        assert await arrivals.passed({EVENTS: 6}) is True
        assert await arrivals.passed({EVENTS: 7}) is False


async def test_all_who_wait_share_their_questions() -> None:
    log = Log(end={EVENTS: 10}, next={EVENTS: 0})
    async with running(log, wait_s=0.2) as arrivals:
        await asyncio.gather(*(arrivals.caught_up() for _ in range(500)))
    assert log.ends_asked <= 2
    assert log.reached_asked <= 25  # 0.2 s at one every 10 ms, and a little


async def test_nobody_asks_when_nobody_waits() -> None:
    log = Log(end={EVENTS: 1}, next={EVENTS: 1})
    async with running(log) as arrivals:
        assert await arrivals.caught_up() is True
        before = log.reached_asked
        await asyncio.sleep(0.05)
        assert log.reached_asked == before


async def test_an_answer_older_than_the_question_does_not_count() -> None:
    log = Log(end={EVENTS: 1}, next={EVENTS: 1})
    slow = asyncio.Event()
    ask = log.ends

    async def ends() -> dict[Part, int]:
        answer = await ask()
        await slow.wait()
        return answer

    arrivals, stop = Arrivals(ends=ends, reached=log.reached, wait_s=1.0), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(arrivals.run(stop))
        first = asyncio.ensure_future(arrivals.caught_up())
        await eventually(lambda: log.ends_asked == 1)
        log.end[EVENTS] = 5
        second = asyncio.ensure_future(arrivals.caught_up())
        slow.set()
        assert await first is True
        assert await second is False, "the second came when the log was at 5"
        stop.set()


async def test_a_log_that_is_away_is_said_to_be() -> None:
    log = Log(away=True)
    async with running(log) as arrivals:
        with pytest.raises(Unavailable):
            await arrivals.caught_up()
        log.away, log.end, log.next = False, {EVENTS: 1}, {EVENTS: 1}
        assert await arrivals.caught_up() is True

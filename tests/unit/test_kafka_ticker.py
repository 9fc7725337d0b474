"""The ticker: when the broker is asked, and that its absence stops nothing."""

import asyncio
from collections.abc import Sequence

from millrace_core.clock import ManualClock
from millrace_core.errors import Retry
from millrace_core.messages import Tick, decode
from millrace_core.record import Output
from millrace_core.steady_clock import SteadyClock
from millrace_kafka.routing import Metadata
from millrace_kafka.ticker import Ticker
from millrace_scheduler.handlers import INPUTS
from tests.support.waiting import eventually


class Broker:
    """Stamps by a clock of its own; `away` = it does not answer."""

    def __init__(self, *, away: int = 0) -> None:
        self.clock = ManualClock()
        self.away = away
        self.asked: list[Output] = []

    async def write(self, outputs: Sequence[Output]) -> list[Metadata]:
        self.asked += outputs
        if self.away:
            self.away -= 1
            raise Retry
        return [Metadata("timers", 0, 0, self.clock.now_ms())]


async def test_the_first_tick_is_waited_for_though_the_broker_is_away() -> None:
    broker, clock = Broker(away=2), SteadyClock(ManualClock())
    await Ticker(clock, broker.write, every_s=0.001).first(asyncio.Event())
    assert not clock.is_doubted
    assert len(broker.asked) == 3


async def test_a_process_told_to_stop_does_not_wait_for_the_broker() -> None:
    stop = asyncio.Event()
    stop.set()
    broker = Broker(away=1_000)
    await Ticker(SteadyClock(ManualClock()), broker.write, every_s=60).first(stop)
    assert not broker.asked


class CountedClock(ManualClock):
    """Counts how often it is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def now_ms(self) -> int:
        self.looks += 1
        return super().now_ms()


async def test_a_jump_is_asked_about_once_and_calm_never() -> None:
    wall, stop, broker = CountedClock(), asyncio.Event(), Broker()
    clock = SteadyClock(wall)
    clock.broker_said(wall.now_ms())
    wall.looks = 0
    async with asyncio.TaskGroup() as group:
        group.create_task(Ticker(clock, broker.write, every_s=0.001).run(stop))
        await eventually(lambda: wall.looks > 5, every_s=0.001)
        assert not broker.asked
        broker.clock.jump(3_600)
        wall.jump(3_600)
        await eventually(lambda: clock.now_ms() == ManualClock.now_ms(wall) and not clock.is_doubted, every_s=0.001)
        stop.set()
    assert len(broker.asked) == 1


async def test_a_tick_is_written_where_the_scheduler_reads_and_asks_for_nothing() -> None:
    broker = Broker()
    await Ticker(SteadyClock(ManualClock()), broker.write).first(asyncio.Event())
    (output,) = broker.asked
    assert decode(output.value, Tick) == Tick()
    assert output.topic in INPUTS

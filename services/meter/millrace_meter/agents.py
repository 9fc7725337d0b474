"""The Faust application: one agent on `tallies`, one windowed table, one timer that tells of closed windows.

Faust acknowledges a record also when the agent fails on it, and loses some with more than one agent at a time, so:
`concurrency=1`, every error is caught here, and a record that is no tally becomes a dead letter. It handles records at
least once, and around a crash, a stop or a start it may count a tally twice or miss one: what the meter tells is
approximate (docs/guides/metering.md says how far), and nothing is decided by it. Topics come from `millrace topics`,
never from Faust.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import faust

from millrace_core import limits
from millrace_core.clock import Clock
from millrace_core.dead_letters import dead_letter
from millrace_core.errors import Reject, Retry
from millrace_core.record import Output, Written
from millrace_kafka.security import Security
from millrace_meter.changelog import QuietTables, ReadableJson, RestoredTable
from millrace_meter.handlers import counted, meter_output
from millrace_meter.windows import WINDOW_MS, Counts, Key, LastWindow, OpenWindows, added, start_of

CLOSE_EVERY_S = 1.0
TABLE = "windows"
SETTLE_S_MAX = 5.0


class Told(Protocol):
    """Told what the meter sees."""

    def counted(self, account: str, counts: Counts) -> None: ...
    def closed(self, last: LastWindow, now_ms: int) -> None: ...
    def dead_letter(self, topic: str, partition: int, offset: int, reason: str) -> None: ...
    def failed(self, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Names:
    """The broker's names of what the meter uses."""

    group: str
    tallies: str
    changelog: str


class MeterAgents:
    """The meter's Faust application, made for the running loop. `run` is its life."""

    def __init__(
        self,
        names: Names,
        *,
        bootstrap: str,
        security: Security,
        write: Callable[[Sequence[Output]], Awaitable[object]],
        told: Told,
        clock: Clock,
        partitions: int,
        folder: Path,
    ) -> None:
        self._write = write
        self._told = told
        self._clock = clock
        self._open = OpenWindows()
        self._last = LastWindow()
        self._is_restored = False
        folder.mkdir(parents=True, exist_ok=True)
        self.app = faust.App(
            names.group,
            broker=[f"kafka://{server}" for server in bootstrap.split(",")],
            broker_credentials=_credentials(security),
            store="memory://",
            # Its tables are in memory; it makes the folder all the same, and would make it where it was started.
            datadir=folder,
            loop=asyncio.get_running_loop(),
            autodiscover=False,
            web_enabled=False,
            processing_guarantee="at_least_once",
            topic_allow_declare=False,
            topic_disable_leader=True,
            topic_partitions=partitions,
            Table=RestoredTable,
            TableManager=QuietTables,
            table_standby_replicas=0,
            table_cleanup_interval=limits.METER_WINDOW_S,
            stream_wait_empty=True,
            stream_recovery_delay=0.0,
            consumer_auto_offset_reset="earliest",
            broker_session_timeout=limits.SESSION_TIMEOUT_S,
            broker_heartbeat_interval=limits.HEARTBEAT_S,
            broker_max_poll_records=1_000,
            producer_linger=0.005,
        )
        raw: dict[str, Any] = {
            "key_type": bytes,
            "value_type": bytes,
            "key_serializer": "raw",
            "value_serializer": "raw",
        }
        changelog = self.app.topic(
            names.changelog,
            key_serializer=ReadableJson(),
            value_serializer=ReadableJson(),
            partitions=partitions,
            acks=False,
            internal=True,
            allow_empty=True,
            maxsize=131_072,
        )
        table = self.app.Table(TABLE, partitions=partitions, on_recover=self._recovered, changelog_topic=changelog)
        self._table: Any = table.tumbling(limits.METER_WINDOW_S, expires=limits.METER_KEPT_S)
        # Once more: `tumbling` gives the table a changelog of Faust's own naming.
        table.changelog_topic = changelog
        self.app.agent(self.app.topic(names.tallies, **raw), concurrency=1, name="tallies")(self._count)
        self.app.timer(interval=CLOSE_EVERY_S)(self._close)

    def ready(self) -> str | None:
        """None when records are being counted, else why not."""
        if not self.app.started or self.app.should_stop:
            return "Faust is not running"
        if self.app.rebalancing or not self.app.rebalancing_count:
            return "its partitions are being assigned"
        if not self._is_restored:
            return "its windows are being restored"
        return None

    async def run(self, stop: asyncio.Event) -> None:
        """Count until `stop`, then finish what is in the agent, commit, and leave the group. Raises Retry when Faust
        gave up: a process that begins anew finds its windows in the changelog."""
        try:
            await self.app.start()
            await self.app.wait(stop.wait())
            if not self.app.should_stop:
                await self._settle()
        finally:
            await self.app.stop()
        if self.app.crashed:
            raise Retry(f"Faust crashed: {self.app.crash_reason!r}") from self.app.crash_reason

    async def _settle(self) -> None:
        """Take no more, finish what was taken, and commit when its changes are on the changelog: Faust's own stop does
        the last two in no order, and the next life would count the last tally twice or not at all."""
        consumer: Any = self.app.consumer
        try:
            async with asyncio.timeout(SETTLE_S_MAX):
                consumer.pause_partitions(consumer.assignment())
                await consumer.wait_empty()
                await self.app.producer.flush()
                await consumer.commit()
        except Exception as error:
            self._told.failed(f"stopped before everything was committed: {type(error).__name__}: {error}")

    async def _count(self, stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            try:
                for key, counts in list(counted(message.value)):
                    self._add(key, counts, int(message.timestamp * 1000))
            except Reject as reason:
                await self._park(message, str(reason))
            except Exception as error:  # an error that left the agent would restart it and lose the record
                self._told.failed(f"{type(error).__name__}: {error}")

    def _add(self, key: Key, counts: Counts, at_ms: int) -> None:
        # The window is that of the record being handled, by the broker's time: Faust takes it from the event.
        self._table["\x1f".join(key)] = list(added(self._counts(start_of(at_ms), key), counts))
        self._open.touch(at_ms, key)
        self._told.counted(key[0], counts)

    def _counts(self, start_ms: int, key: Key) -> Counts | None:
        # The range as Faust writes it: it ends a tenth of a second early.
        start = start_ms / 1000
        found = self._data.get(("\x1f".join(key), (start, start + WINDOW_MS / 1000 - 0.1)))
        return tuple(found) if found else None

    @property
    def _data(self) -> Any:
        return self._table.table.data

    async def _recovered(self) -> None:
        """Windows that may still change are told of when they close; Faust would keep the older ones for ever."""
        self._is_restored = True
        now_ms = self._clock.now_ms()
        for restored in list(self._data):
            text, (start, _) = restored
            if start * 1000 < now_ms - limits.METER_KEPT_S * 1000:
                self._data.pop(restored, None)
                continue
            account, _, identifier = text.partition("\x1f")
            self._open.touch(int(start * 1000), (account, identifier))

    async def _park(self, message: Any, reason: str) -> None:
        record = Written(
            message.topic,
            message.partition,
            message.offset,
            int(message.timestamp * 1000),
            message.key,
            message.value,
            tuple(dict(message.headers or ()).items()),
        )
        self._told.dead_letter(record.topic, record.partition, record.offset, reason)
        try:
            await self._write([dead_letter(record, reason)])
        except (Retry, Reject) as error:
            self._told.failed(f"a dead letter could not be written: {error}")

    async def _close(self) -> None:
        now_ms = self._clock.now_ms()
        closed = self._open.close(now_ms, self._counts)
        self._last.take(closed)
        self._told.closed(self._last, now_ms)
        if not closed:
            return
        try:
            await self._write([meter_output(meter) for meter in closed])
        except (Retry, Reject) as error:
            self._told.failed(f"{len(closed)} windows could not be written: {error}")


def _credentials(security: Security) -> Any:
    """The same way of connecting, in Faust's words."""
    if security.is_sasl:
        return faust.SASLCredentials(
            mechanism=security.mechanism,
            username=security.username,
            password=security.password,
            ssl_context=security.tls(),
        )
    return faust.SSLCredentials(security.tls()) if security.is_tls else None

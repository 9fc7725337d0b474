"""The control view: what every service knows of subscriptions, keys, plans and endpoints, in the order of one log.

It reads the whole of `control` (one partition, committed records) when it starts and follows it from then on. A record
whose `control` header names a position may be handled once the view has `passed` it; the matcher asks for the `end`
instead, on a connection of its own, since on the view's the question would wait behind its long poll (481 ms). Versions
of an aggregate never go back: a lower one is ignored. Not here: who writes (`control_log`), and what a kind means.
"""

import asyncio
import logging
from collections.abc import Mapping

from millrace_core import limits
from millrace_core.clock import Clock
from millrace_core.errors import Fatal, Retry
from millrace_core.handling import ControlFollower
from millrace_core.record import Received
from millrace_core.restart import backoff_s
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import CONTROL_TOPIC, KIND, VERSION
from millrace_kafka.feed import OffLog
from millrace_kafka.observer import Observer, Silent
from millrace_kafka.reader import Reader

log = logging.getLogger(__name__)

PART = (CONTROL_TOPIC, 0)
POLL_S = 0.1
PROVE_EVERY_S = 0.2
BATCH_RECORDS = 5_000

assert PROVE_EVERY_S * 2 < limits.CONTROL_LAG_S_MAX, "one lost answer must not make a view look old"


class ControlView:
    """One per process. `start` loads it, `run` follows; everything else may be called from any task of the loop."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        followers: Mapping[str, ControlFollower],
        clock: Clock,
        observer: Observer | None = None,
    ) -> None:
        self._cluster = cluster
        self._followers = dict(followers)
        self._clock = clock
        self._observer = observer or Silent()
        self._reader = Reader(cluster, fetch_wait_ms=500)
        self._asker = Reader(cluster)
        self._versions: dict[bytes, int] = {}
        self._position = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._asking: asyncio.Future[int] | None = None
        self._next: asyncio.Future[int] | None = None
        self._wanted = asyncio.Event()
        self._fresh_at: float | None = None

    @property
    def position(self) -> int:
        """Everything below this offset of `control` has been applied."""
        return self._position

    def fresh_age_s(self) -> float:
        """Seconds since the view was last proven to hold everything that was on the log; infinite before that."""
        return float("inf") if self._fresh_at is None else self._clock.monotonic() - self._fresh_at

    def ready(self) -> str | None:
        """None when the view is at most `CONTROL_LAG_S_MAX` old, else why not."""
        age = self.fresh_age_s()
        if age <= limits.CONTROL_LAG_S_MAX:
            return None
        return "the control view is not loaded" if age == float("inf") else f"the control view is {age:.1f} s old"

    async def start(self) -> None:
        """Load what is on the log now. Raises Retry when the broker is away: nothing is left open then."""
        try:
            await self._asker.start()
            await self._reader.start()
            asked_at = self._clock.monotonic()
            end = (await self._asker.ends([PART]))[PART]
            self._position = (await self._asker.starts([PART]))[PART]
            self._reader.assign({PART: self._position})
            while self._position < end:
                await self._step()
            self._fresh_at = asked_at
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close. Safe to repeat."""
        await self._reader.stop()
        await self._asker.stop()

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the log until `stop`, then close. Raises Fatal when the log no longer holds the view's position."""
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(self._follow()),
                    tasks.create_task(self._answer()),
                    tasks.create_task(self._prove()),
                ]
                await stop.wait()
                for task in background:
                    task.cancel()
        finally:
            await self.stop()

    # ── following ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        attempt = 0
        while True:
            try:
                await self._step()
                attempt = 0
            except Retry as error:
                self._observer.restarted("control view", str(error))
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1
                await self._reopen()
            except OffLog as error:
                self._observer.stopped(CONTROL_TOPIC, 0, str(error))
                raise Fatal(f"{CONTROL_TOPIC} was made anew or cut under the view: {error}") from error

    async def _reopen(self) -> None:
        try:
            await self._reader.stop()
            await self._reader.start()
            self._reader.assign({PART: self._position})
        except Retry:
            return  # the next step raises it again

    async def _step(self) -> None:
        records = await self._reader.poll(timeout_s=POLL_S, max_records=BATCH_RECORDS)
        for record in records:
            self._apply(record)
        self._moved(self._reader.position(PART))

    def _apply(self, record: Received) -> None:
        headers = dict(record.headers)
        kind = (headers.get(KIND) or b"").decode("utf-8", "replace")
        follower = self._followers.get(kind)
        if follower is None or record.key is None:
            return
        try:
            account, id = headers["account"].decode(), headers["id"].decode()
            version = int(headers[VERSION])
        except (KeyError, ValueError, TypeError, AttributeError) as error:  # a header may have no value
            self._observer.dead_letter(CONTROL_TOPIC, 0, record.offset, f"unreadable headers: {error!r}")
            return
        # The same version again is taken: `control republish` must be able to mend a value.
        if version < self._versions.get(record.key, version):
            return
        self._versions[record.key] = version
        try:
            follower.apply(account, id, record.value)
        except Exception as error:  # a damaged value must not stop the log: it counts as deleted
            self._observer.dead_letter(CONTROL_TOPIC, 0, record.offset, f"{kind} refused its value: {error!r}")
            log.exception("control.value.refused kind=%s id=%s", kind, id)
            follower.apply(account, id, None)

    def _moved(self, position: int) -> None:
        self._position = position
        if not self._waiting:
            return
        for wanted, waiter in self._waiting:
            if wanted <= position and not waiter.done():
                waiter.set_result(None)
        self._waiting = [entry for entry in self._waiting if not entry[1].done()]

    async def passed(self, position: int, *, timeout_s: float = limits.CONTROL_WAIT_S_MAX) -> None:
        """Return when the view has applied everything below `position`. Raises Retry when that takes too long."""
        if position <= self._position:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((position, waiter))
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            raise Retry(f"the control view stands at {self._position}, {position} was asked for") from None

    # ── the end of the log ──────────────────────────────────────────────────────────────────────────────────────────

    async def end(self) -> int:
        """The end of the log at some moment after this call: pass it, and everything in force at the call is known.

        Callers share questions, but never one that was already under way: its answer could be older than the call."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._wanted.set()
        outcome = self._next
        await asyncio.wait([outcome], timeout=limits.CONTROL_WAIT_S_MAX)
        if not outcome.done():
            raise Retry("the broker did not tell the end of the control log")
        answer = outcome.result()
        if answer < 0:
            raise Retry("the end of the control log could not be read")
        return answer

    async def _answer(self) -> None:
        """The one that asks: one question at a time, for all who were waiting when it began."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            asking, self._next = self._next, None
            if asking is None:
                continue
            answer = -1
            try:
                answer = (await self._asker.ends([PART]))[PART]
            except Retry as error:
                self._observer.restarted("control asker", str(error))
                await self._reconnect_asker()
            finally:
                if not asking.done():
                    asking.set_result(answer)

    async def _reconnect_asker(self) -> None:
        try:
            await self._asker.stop()
            await self._asker.start()
        except Retry:
            await asyncio.sleep(limits.RESTART_BACKOFF_S[1])

    async def _prove(self) -> None:
        while True:
            asked_at = self._clock.monotonic()
            try:
                await self.passed(await self.end())
                self._fresh_at = asked_at
            except Retry as error:
                log.warning("control.view.behind reason=%s", error)
            await asyncio.sleep(PROVE_EVERY_S)

"""Endpoints that the platform disables, on real Kafka and Postgres: which ones, that it is told once, their return."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import orjson
import pytest
import structlog

from millrace_api.application import disabling, webhooks
from millrace_api.application.changes import Change, Changes
from millrace_api.application.database import Database
from millrace_api.application.problems import NotYetInForce
from millrace_api.judging import EndpointJudge
from millrace_core import ids
from millrace_core.clock import SystemClock
from millrace_core.errors import Retry
from millrace_core.event import iso_of, to_output
from millrace_core.keyring import KeyRing, new_ring_entry
from millrace_core.messages import EndpointControl, Event, decode
from millrace_core.record import Output
from millrace_kafka.reader import read_all
from millrace_store.aggregates import ms
from millrace_store.migrations import migrate
from millrace_store.pool import open_pool
from tests.support.api_world import ApiWorld
from tests.support.waiting import eventually

RING = KeyRing.parse(new_ring_entry("k1"))
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
URL = "https://example.test/hook?token=hush"
DELIVERY = """INSERT INTO read.deliveries
        (id, account, endpoint, event, status, attempts, error_code, created_at, ended_at)
    VALUES ($1, $2, $3, gen_random_uuid(), $4, 1, $5, $6, $7)"""
ATTEMPT = """INSERT INTO read.delivery_attempts (delivery, n, account, outcome, at, duration_ms, url)
    VALUES ($1, 1, $2, $3, $4, 1, 'https://example.test/hook')"""


def days(count: float) -> timedelta:
    return timedelta(days=count)


class Judging:
    """A database with an account and an endpoint of ten days, and what came of its deliveries."""

    def __init__(self, database: Database, endpoint: str) -> None:
        self.database = database
        self.endpoint = ids.uuid_of(endpoint)

    async def delivered(self, at: datetime, status: str, *, endpoint: UUID | None = None, account: str = "a") -> None:
        id, error = ids.uuid_of(ids.new_id(ids.DELIVERY)), None if status == "succeeded" else "http_500"
        async with self.database.writing() as tx:
            ended_at = None if status == "retrying" else at
            await tx.execute(DELIVERY, id, account, endpoint or self.endpoint, status, error, at, ended_at)
            await tx.execute(ATTEMPT, id, account, status, at)

    async def execute(self, statement: str, *args: Any) -> None:
        async with self.database.writing() as tx:
            await tx.execute(statement, *args)

    async def failing(self) -> list[datetime]:
        async with self.database.asking() as tx:
            return [judged.since for judged in await disabling.failing(tx, NOW)]


@pytest.fixture
async def judging(database: str) -> AsyncIterator[Judging]:
    await migrate(database)
    async with open_pool(database, name="test") as pool:
        await pool.execute(
            "INSERT INTO control.accounts (id, version, name, plan, created_at) VALUES ('a', 1, 'a', 'free', now())"
        )
        own = Database(pool)
        async with own.writing() as tx:
            wanted = webhooks.Wanted(URL)
            made = await webhooks.create(Change(tx, NOW - days(10)), "a", wanted, secret=None, ring=RING, egress=())
        yield Judging(own, made.id)


# ── which ones ──────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_five_days_of_nothing_but_failures_are_enough(judging: Judging) -> None:
    await judging.delivered(NOW - days(7), "succeeded")
    assert await judging.failing() == []
    await judging.delivered(NOW - days(5.1), "failed")
    await judging.delivered(NOW - days(2), "failed")
    assert await judging.failing() == [], "the latest failure is no longer of today"
    await judging.delivered(NOW - days(0.1), "retrying")
    assert await judging.failing() == [NOW - days(5.1)]


@pytest.mark.parametrize("since_days", [6.0, 3.0, 0.2])
async def test_one_success_begins_the_count_anew(judging: Judging, since_days: float) -> None:
    for ago in (5.5, 4, 2, 0.1):
        await judging.delivered(NOW - days(ago), "failed")
    for _ in range(disabling.NEWEST_LOOKED_AT):
        await judging.delivered(NOW - days(0.05), "failed")
    await judging.delivered(NOW - days(since_days), "succeeded")
    assert await judging.failing() == ([NOW - days(5.5)] if since_days > 5.5 else [])


async def test_less_than_five_days_are_not_enough(judging: Judging) -> None:
    for ago in (4.9, 3, 1, 0.1):
        await judging.delivered(NOW - days(ago), "failed")
    assert await judging.failing() == []


async def test_what_was_enabled_is_judged_anew(judging: Judging) -> None:
    for ago in (6, 3, 0.1):
        await judging.delivered(NOW - days(ago), "failed")
    assert len(await judging.failing()) == 1
    await judging.execute("UPDATE control.webhook_endpoints SET judged_since = $1", NOW - days(5.5))
    assert await judging.failing() == []


@pytest.mark.parametrize("change", ["enabled = false", "deleted_at = now()"])
async def test_what_is_not_there_is_not_judged(judging: Judging, change: str) -> None:
    for ago in (6, 0.1):
        await judging.delivered(NOW - days(ago), "failed")
    await judging.execute(f"UPDATE control.webhook_endpoints SET {change}")
    assert await judging.failing() == []


async def test_another_account_s_failures_say_nothing(judging: Judging) -> None:
    for ago in (6, 0.1):
        await judging.delivered(NOW - days(ago), "failed", account="b")
        await judging.delivered(NOW - days(ago), "failed", endpoint=ids.uuid_of(ids.new_id(ids.ENDPOINT)))
    assert await judging.failing() == []


# ── once ────────────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_it_is_disabled_once_and_its_event_is_the_same_each_time_it_is_written(judging: Judging) -> None:
    delivery = ids.uuid_of(ids.new_id(ids.DELIVERY))
    await judging.execute(DELIVERY, delivery, "a", judging.endpoint, "failed", "http_410", NOW, NOW)
    async with judging.database.asking() as tx:
        (judged,) = await disabling.gone(tx)
    assert judged == disabling.Judged("a", judging.endpoint, NOW)
    changed = []
    for n in range(2):
        async with judging.database.writing() as tx:
            change = Change(tx, NOW + timedelta(seconds=n))
            changed.append((await disabling.disable(change, judged, "gone"), len(change.entries)))
    assert changed == [(True, 1), (False, 0)]
    async with judging.database.asking() as tx:
        assert await disabling.gone(tx) == []
        (untold,) = await disabling.untold(tx)
        first, again = (to_output(disabling.event_of(untold)) for _ in range(2))
        assert first == again
        assert decode(first.value, Event).unique_key is not None
        assert b"hush" not in (first.value or b""), "a URL may hold what is nobody's business"
        await disabling.told(tx, untold, NOW)
        assert await disabling.untold(tx) == []


class Producer:
    """A log that is away at first."""

    def __init__(self) -> None:
        self.is_away = True
        self.written: list[Output] = []

    async def write(self, outputs: Sequence[Output]) -> Sequence[Any]:
        if self.is_away:
            raise Retry("the log is away")
        self.written += outputs
        return ()


class Nowhere:
    """A view of `control` that no relay ever moves."""

    async def passed(self, position: int, *, timeout_s: float) -> None:
        raise Retry("not yet")


async def test_whatever_is_away_meanwhile_the_event_is_written_once(judging: Judging) -> None:
    clock, producer = SystemClock(), Producer()
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    for ago in (6, 0.1):
        await judging.delivered(now - days(ago), "failed")
    changes = Changes(judging.database, Nowhere(), clock, wait_s=0.01)
    judge = EndpointJudge(judging.database, changes, events=producer, clock=clock, log=structlog.get_logger())
    with pytest.raises(NotYetInForce):
        await judge.look()
    with pytest.raises(Retry):
        await judge.look()
    producer.is_away = False
    for _ in range(3):
        await judge.look()
    (output,) = producer.written
    properties = orjson.loads(bytes(decode(output.value, Event).properties))
    assert (properties["reason"], properties["since"]) == ("failing", iso_of(ms(now - days(6))))


# ── through the API ─────────────────────────────────────────────────────────────────────────────────────────────────
async def gone(api: ApiWorld, webhook: str) -> None:
    """What the projector writes of a delivery that was answered with 410 just now."""
    at = datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC)
    delivery, endpoint = ids.uuid_of(ids.new_id(ids.DELIVERY)), ids.uuid_of(webhook)
    await api.execute(DELIVERY, delivery, api.account, endpoint, "failed", "http_410", at, at)


async def made(api: ApiWorld, **more: Any) -> str:
    return str((await api.ask("POST", "/v1/webhooks", {"url": URL, **more})).data["id"])


async def disabled(api: ApiWorld, webhook: str) -> Any:
    async def is_disabled() -> Any:
        found = (await api.ask("GET", f"/v1/webhooks/{webhook}")).data
        return None if found["enabled"] else found

    return await eventually(is_disabled, every_s=0.1)


async def told(api: ApiWorld, webhook: str) -> list[Event]:
    """The events about an endpoint that stand on the log."""
    events = [decode(read.value, Event) for read in await read_all(api.cluster, ["events"])]
    return [event for event in events if webhook.encode() in bytes(event.properties)]


async def test_who_answers_410_is_disabled_and_its_owner_enables_it_again(api: ApiWorld) -> None:
    webhook = await made(api)
    await gone(api, webhook)
    found = await disabled(api, webhook)
    assert found["disabled_reason"] == "gone"
    assert found["disabled_at"] is not None
    (event,) = await eventually(lambda: told(api, webhook))
    assert (event.identifier, event.account, event.hops) == ("e:millrace/endpoint.disabled", api.account, 1)
    properties = orjson.loads(bytes(event.properties))
    assert (properties["endpoint"], properties["reason"]) == (webhook, "gone")
    assert set(properties) == {"endpoint", "reason", "message", "disabled_at", "since"}
    records = [
        read for read in await read_all(api.cluster, ["control"]) if (read.key or b"").endswith(webhook.encode())
    ]
    assert [msgspec.json.decode(read.value or b"", type=EndpointControl).enabled for read in records] == [True, False]

    enabled = (await api.ask("PATCH", f"/v1/webhooks/{webhook}", {"enabled": True})).data
    assert (enabled["enabled"], enabled["disabled_at"], enabled["disabled_reason"]) == (True, None, None)
    other = await made(api)
    await gone(api, other)
    await disabled(api, other)
    assert (await api.ask("GET", f"/v1/webhooks/{webhook}")).data["enabled"], "what was before is over"
    assert len(await told(api, webhook)) == 1


async def test_what_a_crash_left_untold_is_told(api: ApiWorld) -> None:
    """The row is there, as if the process had died between the change and its event."""
    webhook = await made(api, enabled=False)
    await api.execute(
        """INSERT INTO control.disablings (account, endpoint, disabled_at, reason, since)
           VALUES ($1, $2, now(), 'failing', now())""",
        api.account,
        ids.uuid_of(webhook),
    )
    (event,) = await eventually(lambda: told(api, webhook))
    assert orjson.loads(bytes(event.properties))["reason"] == "failing"


async def test_what_its_owner_disables_says_so_and_tells_nobody(api: ApiWorld) -> None:
    webhook = await made(api)
    off = (await api.ask("PATCH", f"/v1/webhooks/{webhook}", {"enabled": False})).data
    assert (off["disabled_reason"], off["disabled_at"]) == ("requested", off["updated_at"])
    again = (await api.ask("PATCH", f"/v1/webhooks/{webhook}", {"description": "off"})).data
    assert again["disabled_at"] == off["disabled_at"]
    assert (await api.ask("GET", f"/v1/webhooks/{await made(api, enabled=False)}")).data[
        "disabled_reason"
    ] == "requested"
    assert await told(api, webhook) == []


async def test_a_rate_is_set_changed_and_taken_away(api: ApiWorld) -> None:
    webhook = await made(api, rate=2.5)
    assert (await api.ask("GET", f"/v1/webhooks/{webhook}")).data["rate"] == 2.5
    assert (await api.ask("PATCH", f"/v1/webhooks/{webhook}", {"rate": 10})).data["rate"] == 10.0
    assert (await api.ask("PATCH", f"/v1/webhooks/{webhook}", {"description": "same"})).data["rate"] == 10.0
    assert (await api.ask("PATCH", f"/v1/webhooks/{webhook}", {"rate": None})).data["rate"] is None
    records = [
        read for read in await read_all(api.cluster, ["control"]) if (read.key or b"").endswith(webhook.encode())
    ]
    rates = [msgspec.json.decode(read.value or b"", type=EndpointControl).rate for read in records]
    assert rates == [2.5, 10.0, 10.0, None]
    for wrong in (0, -1, 0.001, 1e9, "many"):
        assert (await api.ask("PATCH", f"/v1/webhooks/{webhook}", {"rate": wrong})).status == 400, wrong

"""What an account is shown: nothing that is older than it keeps, but what is not over, in every way of asking."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from millrace_core import ids, limits
from millrace_core.clock import SystemClock
from millrace_core.ids import DAY_MS
from millrace_core.messages import Event, decode
from millrace_core.payloads import digest_in, reference_to
from millrace_core.record import header
from millrace_kafka.reader import read_all
from tests.support.api_world import ApiWorld
from tests.support.waiting import eventually

KEPT_DAYS = 5
TODAY_MS = SystemClock().now_ms() // DAY_MS * DAY_MS
FIRST_MS = TODAY_MS - KEPT_DAYS * DAY_MS
"""The first moment that is shown."""

_EVENT = """INSERT INTO read.events (id, account, identifier, received_at, hops, partition, "offset", properties)
    VALUES ($1, $2, $4, $3, 0, 0, 0, $5)"""
_RUN = "INSERT INTO read.runs (id, account, status, created_at, ended_at) VALUES ($1, $2, $4, $3, $3)"
_DELIVERY = """INSERT INTO read.deliveries (id, account, endpoint, event, status, attempts, created_at, ended_at)
    VALUES ($1, $2, gen_random_uuid(), gen_random_uuid(), $4, 0, $3, $3)"""
_LETTER = """INSERT INTO read.dead_letters (topic, partition, "offset", account, at, reason, source_topic, headers)
    VALUES ('dead-letters', 9, $1, $2, $3, 'retention', 'events', '{}')"""


@pytest.fixture
async def short(api: ApiWorld) -> AsyncIterator[str]:
    """Account B, which keeps five days meanwhile; its id."""
    await keep(api, KEPT_DAYS)
    yield (await api.ask_b("GET", "/v1/accounts/me")).data["id"]
    await keep(api, limits.RETENTION_DAYS_DEFAULT)


async def keep(api: ApiWorld, days: int) -> Any:
    return (await api.ask_b("PATCH", "/v1/accounts/me", {"retention_days": days})).data


def id_at(prefix: str, ms: int) -> str:
    return ids.derived_id(prefix, ms, prefix, ids.new_id(prefix))


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


async def made(api: ApiWorld, account: str, kind: str, ms: int, *more: Any) -> str:
    prefix, statement = {
        "events": (ids.EVENT, _EVENT),
        "runs": (ids.RUN, _RUN),
        "deliveries": (ids.DELIVERY, _DELIVERY),
    }[kind]
    id = id_at(prefix, ms)
    await api.execute(statement, ids.uuid_of(id), account, at(ms), *more)
    return id


async def listed(api: ApiWorld, query: str) -> set[str]:
    return {item["id"] for item in (await api.ask_b("GET", f"/v1/{query}limit=100")).data}


async def test_the_account_says_what_it_keeps(api: ApiWorld, short: str) -> None:
    me = (await api.ask_b("GET", "/v1/accounts/me")).data
    assert (me["retention_days"], datetime.fromisoformat(me["kept_since"])) == (KEPT_DAYS, at(FIRST_MS))


@pytest.mark.parametrize("days", [limits.RETENTION_DAYS_MIN - 1, limits.RETENTION_DAYS_DEFAULT + 1, None, "7"])
async def test_a_retention_that_cannot_be_is_refused(api: ApiWorld, short: str, days: Any) -> None:
    answer = await api.ask_b("PATCH", "/v1/accounts/me", {"retention_days": days})
    assert (answer.status, answer.error["code"]) == (400, "VALIDATION_ERROR")
    assert "retention_days" in str(answer.error["details"])
    assert (await api.ask_b("GET", "/v1/accounts/me")).data["retention_days"] == KEPT_DAYS


@pytest.mark.parametrize(
    ("kind", "more", "query"),
    [
        ("events", ("e:retention/list", b"{}"), "events?"),
        ("events", ("e:retention/list", b"{}"), "events?identifier=e:retention/list&"),
        ("runs", ("completed",), "runs?"),
        ("runs", ("failed",), "runs?status=failed&"),
        ("deliveries", ("succeeded",), "deliveries?"),
        ("deliveries", ("failed",), "deliveries?status=failed&"),
    ],
)
async def test_what_is_older_is_not_shown(
    api: ApiWorld, short: str, kind: str, more: tuple[Any, ...], query: str
) -> None:
    hidden = await made(api, short, kind, FIRST_MS - 1, *more)
    shown = await made(api, short, kind, FIRST_MS, *more)
    found = await listed(api, query)
    assert shown in found
    assert hidden not in found
    for id, status in ((shown, 200), (hidden, 404)):
        for path in (f"/v1/{kind}/{id}", f"/v1/{kind}/{id}/trace"):
            assert (await api.ask_b("GET", path)).status == status, path
    await keep(api, KEPT_DAYS + 1)
    assert hidden in await listed(api, query), "what is there still is shown again when more is kept"


@pytest.mark.parametrize(
    ("kind", "statuses"), [("runs", ("queued", "running")), ("deliveries", ("queued", "retrying"))]
)
async def test_what_is_not_over_is_shown_however_old(
    api: ApiWorld, short: str, kind: str, statuses: tuple[str, ...]
) -> None:
    alive = {await made(api, short, kind, FIRST_MS - 2 * DAY_MS, status) for status in statuses}
    assert alive <= await listed(api, f"{kind}?")
    for id in alive:
        assert (await api.ask_b("GET", f"/v1/{kind}/{id}")).status == 200
        assert not (await api.ask_b("GET", f"/v1/{kind}/{id}/trace")).data["is_over"]
    some = await listed(api, f"{kind}?status={statuses[0]}&")
    assert len(alive & some) == 1
    page = (await api.ask_b("GET", f"/v1/{kind}?limit=1")).json
    pages = [item["id"] for item in page["data"]]
    while page["meta"]["has_more"]:
        page = (await api.ask_b("GET", f"/v1/{kind}?limit=1&cursor={page['meta']['next_cursor']}")).json
        pages += [item["id"] for item in page["data"]]
    assert len(pages) == len(set(pages))
    assert alive <= set(pages)
    for id in alive:
        await api.execute(f"UPDATE read.{kind} SET status = 'failed' WHERE id = $1", ids.uuid_of(id))
    assert not alive & await listed(api, f"{kind}?")


async def test_older_dead_letters_are_neither_shown_nor_counted(api: ApiWorld, short: str) -> None:
    for offset, ms in ((1, FIRST_MS - 1), (2, FIRST_MS)):
        await api.execute(_LETTER, offset, short, at(ms))
    found = await listed(api, "dead-letters?reason=retention&")
    assert found == {"dead-letters:9:2"}
    assert (await api.ask_b("GET", "/v1/dead-letters/count?reason=retention")).data["count"] == 1
    assert (await api.ask_b("GET", "/v1/dead-letters/dead-letters:9:1")).status == 404
    body = {"reason": "retention", "since": at(FIRST_MS - DAY_MS).isoformat(), "dry_run": True}
    assert (await api.ask_b("POST", "/v1/dead-letters/redrive", body)).data["letters"] == 1


async def test_older_events_are_not_replayed(api: ApiWorld, short: str) -> None:
    for ms in (FIRST_MS - 1, FIRST_MS, FIRST_MS + 1):
        await made(api, short, "events", ms, "e:retention/replay", b"{}")
    body = {"since": at(FIRST_MS - DAY_MS).isoformat(), "pattern": "e:retention/replay", "dry_run": True}
    assert (await api.ask_b("POST", "/v1/events/replay", body)).data["events"] == 2


async def test_a_large_event_is_shown_and_replayed_byte_for_byte(api: ApiWorld) -> None:
    properties = b'{"n":  1e2, "filling": "%b"}' % (b"x" * 100_000)
    reference = reference_to(properties)
    id = await made(api, api.account, "events", TODAY_MS, "e:retention/large", reference)
    await api.execute(
        "INSERT INTO read.payloads VALUES ($1, $2, $3, $4)",
        ids.uuid_of(id), digest_in(reference), api.account, properties,
    )  # fmt: skip
    (summary,) = (await api.ask("GET", "/v1/events?identifier=e:retention/large")).data
    assert summary["bytes"] == len(properties)
    assert b'"properties":' + properties in (await api.ask("GET", f"/v1/events/{id}")).body
    filter = {"n": [{"numeric": ["=", 100]}]}
    body = {"since": at(TODAY_MS).isoformat(), "pattern": "e:retention/large", "filter": filter}
    asked = await api.ask("POST", "/v1/events/replay", body)
    replay = asked.data["id"]

    async def is_over() -> bool:
        return bool((await api.ask("GET", f"/v1/replays/{replay}")).data["state"] == "completed")

    await eventually(is_over, timeout_s=30)
    read = [decode(one.value, Event) for one in await read_all(api.cluster, ["events"]) if header(one, "surface")]
    (again,) = [event for event in read if event.replay == replay]
    assert bytes(again.properties) == properties


async def test_a_large_run_and_delivery_are_shown_byte_for_byte(api: ApiWorld) -> None:
    output = b'{"filling":  "%b"}' % (b"y" * 100_000)
    reference = reference_to(output)

    async def kept(id: str) -> UUID:
        uuid = ids.uuid_of(id)
        await api.execute(
            "INSERT INTO read.payloads VALUES ($1, $2, $3, $4)", uuid, digest_in(reference), api.account, output
        )
        return uuid

    run = await made(api, api.account, "runs", TODAY_MS, "completed")
    await api.execute("UPDATE read.runs SET output = $2 WHERE id = $1", await kept(run), reference)
    await api.execute(
        """INSERT INTO read.steps (run, node, account, status, attempts, output)
           VALUES ($1, 'a', $2, 'completed', 1, $3)""",
        ids.uuid_of(run), api.account, reference,
    )  # fmt: skip
    assert (await api.ask("GET", f"/v1/runs/{run}")).body.count(b'"output":' + output) == 2
    delivery = await made(api, api.account, "deliveries", TODAY_MS, "succeeded")
    await api.execute("UPDATE read.deliveries SET body = $2 WHERE id = $1", await kept(delivery), reference)
    assert b'"body":' + output in (await api.ask("GET", f"/v1/deliveries/{delivery}")).body


async def test_a_payload_that_is_not_there_is_no_half_answer(api: ApiWorld) -> None:
    properties = reference_to(b"x" * 70_000)
    id = await made(api, api.account, "events", TODAY_MS, "e:retention/lost", properties)
    answer = await api.ask("GET", f"/v1/events/{id}")
    assert (answer.status, answer.error["code"]) == (503, "UNAVAILABLE")
    await api.execute("DELETE FROM read.events WHERE id = $1", ids.uuid_of(id))


async def test_changing_the_retention_leaves_the_rest_of_the_account(api: ApiWorld, short: str) -> None:
    both = {"retention_days": 6, "unordered": ["e:retention/any"]}
    changed = (await api.ask_b("PATCH", "/v1/accounts/me", both)).data
    assert (changed["retention_days"], changed["unordered"]) == (6, ["e:retention/any"])
    assert datetime.fromisoformat(changed["kept_since"]) == at(TODAY_MS) - timedelta(days=6)
    assert (await api.ask_b("PATCH", "/v1/accounts/me", {"unordered": []})).data["retention_days"] == 6

"""Events, runs, deliveries and dead letters through HTTP; reads that wait for the caller's own writes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from millrace_api.application.arrivals import PROJECTED
from millrace_core import ids
from millrace_core.clock import SystemClock
from millrace_core.ids import DAY_MS
from millrace_core.messages import RunCommand, StartRun
from millrace_core.record import payload_bytes
from millrace_kafka.reader import read_all
from millrace_projector.handlers import TOPICS
from tests.support.api_world import FAR, ApiWorld
from tests.support.waiting import eventually

STEP = {"type": "transform", "config": {"value": 1}}


@pytest.fixture
async def behind(api: ApiWorld) -> AsyncIterator[ApiWorld]:
    """The read models have seen nothing of events and commands yet."""
    topics = ("events", "run-commands", "deliveries")
    for topic in topics:
        await api.reach(topic, 0)
    yield api
    for topic in topics:
        await api.reach(topic, FAR)


async def start_run(api: ApiWorld, raw: bytes = b"{}") -> Any:
    job = (await api.ask("POST", "/v1/jobs", {"name": "x", "step": STEP})).data["id"]
    return await api.ask("POST", f"/v1/jobs/{job}/run", raw=raw)


async def test_an_event_is_shown_byte_for_byte(api: ApiWorld) -> None:
    id = await api.projected("events")
    answer = await api.ask("GET", f"/v1/events/{id}")
    assert b'"properties":{"n":  1e2, "long": 12345678901234567890, "z": "\\u0000"}' in answer.body
    assert (answer.data["id"], answer.data["identifier"], answer.data["outcome"]) == (id, "e:a/b", None)


async def test_a_delivery_and_a_dead_letter_are_shown_byte_for_byte(api: ApiWorld) -> None:
    delivery = await api.ask("GET", f"/v1/deliveries/{await api.projected('deliveries')}")
    assert b'"body":{"a": 1.10}' in delivery.body
    letter = (await api.ask("GET", f"/v1/dead-letters/{await api.projected('dead-letters')}")).data
    assert letter["value"] == {"encoding": "base64", "text": "/wA="}


@pytest.mark.parametrize("kind", ["events", "runs", "deliveries", "dead-letters"])
async def test_lists_are_newest_first_and_pages_join_without_gap(api: ApiWorld, kind: str) -> None:
    made = [await api.projected(kind) for _ in range(5)][::-1]
    seen: list[str] = []
    page = (await api.ask("GET", f"/v1/{kind}?limit=2")).json
    while len(seen) < 5:
        seen += [item["id"] for item in page["data"]]
        page = (await api.ask("GET", f"/v1/{kind}?limit=2&cursor={page['meta']['next_cursor']}")).json
    assert seen[:5] == made
    assert (await api.ask_b("GET", f"/v1/{kind}")).data == []


@pytest.mark.parametrize(
    "query",
    [
        "runs?status=odd",
        "runs?plan=x",
        "runs?event=x",
        "deliveries?status=odd",
        "deliveries?webhook=%00",
        "events?identifier=x",
        "dead-letters?topic=%00",
        "dead-letters/count?reason=%00",
        "dead-letters?since=2026-01-01T00:00:00",
        "dead-letters?until=never",
    ],
)
async def test_a_wrong_filter_is_no_server_error(api: ApiWorld, query: str) -> None:
    assert (await api.ask("GET", f"/v1/{query}")).status in (400, 404)


LETTER = """INSERT INTO read.dead_letters
    (topic, partition, "offset", account, at, reason, source_topic, source_partition, source_offset, headers)
    VALUES ('dead-letters-tx', 1, $1, $2, $3, $4, $5, 0, 7, '{}') ON CONFLICT DO NOTHING"""
DAY = datetime.fromtimestamp(SystemClock().now_ms() // DAY_MS * DAY_MS / 1000, UTC) - timedelta(days=5)


@pytest.fixture
async def letters(api: ApiWorld) -> ApiWorld:
    """Four letters of account A, one a minute, five days ago."""
    kinds = [("events", "Not JSON"), ("events", "no account"), ("steps", "not json, again"), ("steps", "no room")]
    for n, (topic, reason) in enumerate(kinds):
        await api.execute(LETTER, n, api.account, DAY + timedelta(minutes=n), reason, topic)
    return api


@pytest.mark.parametrize(
    ("query", "offsets"),
    [
        ("", [3, 2, 1, 0]),
        ("&topic=events", [1, 0]),
        ("&topic=deliveries", []),
        ("&reason=JSON", [2, 0]),
        ("&reason=%25", []),
        ("&topic=steps&reason=json", [2]),
        (f"&until={DAY:%Y-%m-%d}T00:02:00Z", [1, 0]),
        (f"&until={DAY:%Y-%m-%d}T01:02:00%2B01:00", [1, 0]),
    ],
)
async def test_a_filter_lists_and_counts_the_same_dead_letters(
    letters: ApiWorld, query: str, offsets: list[int]
) -> None:
    asked = f"since={DAY:%Y-%m-%d}T00:00:00Z{query}"
    asked += "" if "until" in query else f"&until={DAY + timedelta(days=1):%Y-%m-%d}T00:00:00Z"
    found = (await letters.ask("GET", f"/v1/dead-letters?{asked}")).data
    assert [letter["id"] for letter in found] == [f"dead-letters-tx:1:{offset}" for offset in offsets]
    counted = {"count": len(offsets), "exact": True}
    assert (await letters.ask("GET", f"/v1/dead-letters/count?{asked}")).data == counted
    assert (await letters.ask_b("GET", f"/v1/dead-letters/count?{asked}")).data == {"count": 0, "exact": True}


async def test_a_filtered_list_has_its_own_pages(letters: ApiWorld) -> None:
    first = (await letters.ask("GET", "/v1/dead-letters?topic=steps&limit=1")).json
    cursor = first["meta"]["next_cursor"]
    second = (await letters.ask("GET", f"/v1/dead-letters?topic=steps&limit=1&cursor={cursor}")).json
    seen = [page["data"][0]["id"] for page in (first, second)]
    assert (seen, second["meta"]["has_more"]) == (["dead-letters-tx:1:3", "dead-letters-tx:1:2"], False)
    assert (await letters.ask("GET", f"/v1/dead-letters?topic=events&limit=1&cursor={cursor}")).status == 400


async def test_a_time_at_the_end_of_the_calendar_is_only_a_bound(letters: ApiWorld) -> None:
    asked = "since=0001-01-01T00:00:00%2B14:00&until=9999-12-31T23:59:59-14:00&topic=events"
    assert (await letters.ask("GET", f"/v1/dead-letters/count?{asked}")).data == {"count": 2, "exact": True}


async def test_a_started_run_pins_its_plan_and_keeps_its_input(api: ApiWorld) -> None:
    answer = await start_run(api, b'{"input": {"n":  1e2, "n": 2}}')
    assert (answer.status, answer.data["status"]) == (202, "queued")
    topic, partition, offset = answer.headers["x-millrace-position"].split(":")
    (record,) = [
        record
        for record in await read_all(api.cluster, [topic])
        if (record.partition, record.offset) == (int(partition), int(offset))
    ]
    command = msgspec.json.decode(record.value or b"", type=RunCommand)
    assert isinstance(command, StartRun)
    assert (command.run, command.account) == (answer.data["id"], api.account)
    assert payload_bytes(record) == b'{"n":  1e2, "n": 2}'
    assert msgspec.json.decode(command.plan)["kind"] == "job"


@pytest.mark.parametrize("raw", [b'{"input": 1}', b'{"inptu": {}}', b'{"input": {"a": NaN}}', b"nonsense"], ids=repr)
async def test_a_wrong_input_is_400(api: ApiWorld, raw: bytes) -> None:
    assert (await start_run(api, raw)).error["code"] == "VALIDATION_ERROR"


async def test_a_run_that_is_over_cannot_be_cancelled(api: ApiWorld) -> None:
    run = await api.projected("runs")
    assert (await api.ask("POST", f"/v1/runs/{run}/cancel")).status == 202
    await api.execute("UPDATE read.runs SET status = 'completed' WHERE id = $1", ids.uuid_of(run))
    assert (await api.ask("POST", f"/v1/runs/{run}/cancel")).error["code"] == "CONFLICT"


# ── read your writes ────────────────────────────────────────────────────────────────────────────────────────────────
async def test_the_api_knows_every_topic_that_is_projected() -> None:
    # `control` makes no rows: its tables are written before it.
    assert set(TOPICS) == {*PROJECTED, "control"}


async def test_an_id_that_is_not_there_yet_is_waited_for(behind: ApiWorld) -> None:
    run = (await start_run(behind)).data["id"]
    asked = asyncio.ensure_future(behind.ask("GET", f"/v1/runs/{run}"))
    await asyncio.sleep(0.1)
    assert not asked.done()
    await behind.execute(
        "INSERT INTO read.runs (id, account, status, created_at) VALUES ($1, $2, 'queued', now())",
        ids.uuid_of(run),
        behind.account,
    )
    await behind.reach("run-commands", FAR)
    answer = await asked
    assert answer.data["status"] == "queued"


async def test_an_id_that_stays_away_is_404_within_the_bound(behind: ApiWorld) -> None:
    await start_run(behind)
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await behind.ask("GET", "/v1/runs/exec_" + "0" * 32)
    assert answer.status == 404
    assert 1.8 < loop.time() - began < 4.0


async def test_an_id_of_no_kind_is_not_waited_for(behind: ApiWorld) -> None:
    await start_run(behind)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for id in ("nonsense", "job_" + "0" * 32, "exec_12"):
        assert (await behind.ask("GET", f"/v1/runs/{id}")).status == 404
    assert loop.time() - began < 1.5


async def test_a_position_is_waited_for_on_any_read(behind: ApiWorld) -> None:
    position = (await start_run(behind)).headers["x-millrace-position"]
    asked = asyncio.ensure_future(behind.ask("GET", "/v1/runs", headers={"x-millrace-position": position}))
    await asyncio.sleep(0.1)
    assert not asked.done()
    await behind.reach("run-commands", FAR)
    assert (await asked).status == 200


async def test_a_position_that_is_not_reached_says_so(behind: ApiWorld) -> None:
    position = (await start_run(behind)).headers["x-millrace-position"]
    answer = await behind.ask("GET", "/v1/runs", headers={"x-millrace-position": position})
    assert (answer.status, answer.error["code"]) == (503, "NOT_YET_READABLE")
    assert answer.headers["Retry-After"] == "1"


async def test_a_position_on_control_is_passed_already(behind: ApiWorld) -> None:
    answer = await behind.ask("GET", "/v1/runs", headers={"x-millrace-position": "control:0:999999"})
    assert answer.status == 200


@pytest.mark.parametrize("position", ["x", "events:0", "events:a:b", ","])
async def test_a_position_that_is_none_is_400(api: ApiWorld, position: str) -> None:
    assert (await api.ask("GET", "/v1/runs", headers={"x-millrace-position": position})).status == 400


async def test_many_that_wait_share_their_questions(behind: ApiWorld) -> None:
    """100 made-up ids at once hold no connection while they wait: another read is answered meanwhile."""
    await start_run(behind)
    path = "/v1/runs/exec_" + "0" * 32
    waiting = [asyncio.ensure_future(behind.ask("GET", path)) for _ in range(100)]
    await eventually(lambda: not any(task.done() for task in waiting))
    assert (await behind.ask("GET", "/v1/jobs?limit=1")).status == 200
    assert not all(task.done() for task in waiting)
    # 503 where a busy machine did not answer "how far" in time: asked again, it is a 404.
    assert {(await task).status for task in waiting} <= {404, 503}
    assert (await behind.ask("GET", path)).status == 404

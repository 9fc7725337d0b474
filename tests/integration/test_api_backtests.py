"""Backtests through HTTP over events in the read models: which count, what they cost, how a long one goes on."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from millrace_api.application.backtests import Asked, Backtests, Report, Span
from millrace_api.application.database import Database
from millrace_api.application.problems import Conflict
from millrace_api.application.subscriptions import Target, Wanted
from millrace_api.surfaces.native.routes.subscriptions import from_cursor, to_cursor
from millrace_core import ids
from millrace_core.clock import SystemClock
from millrace_store import queries
from millrace_store.migrations import migrate
from millrace_store.pool import connect, open_pool
from millrace_store.projection import Projection
from millrace_web.paging import Cursors
from tests.support.api_world import ApiWorld

START = datetime(2026, 2, 3, 4, 5, 0, tzinfo=UTC)
_EVENT = """INSERT INTO read.events (id, account, identifier, received_at, hops, partition, "offset", properties)
    VALUES ($1, $2, $3, $4, $5, 1, $6, $7)"""
_OUTCOME = """INSERT INTO read.event_outcomes (event, partition, "offset", account, outcome, decided_at)
    VALUES ($1, 1, $2, $3, $4, now())"""
_RUN = """INSERT INTO read.runs (id, account, status, plan, created_at, started_at, ended_at)
    VALUES ($1, $2, 'completed', $3, $4, $4, $4::timestamptz + $5 * interval '1 second')"""
_offsets = itertools.count()


async def received(
    api: ApiWorld,
    identifier: str,
    *properties: bytes,
    every_s: float = 1,
    outcome: str | None = "unmatched",
    account: str | None = None,
) -> list[str]:
    """Events in the read models, as the projector would have written them."""
    made = []
    for n, each in enumerate(properties):
        id, offset = ids.new_id(ids.EVENT), next(_offsets)
        uuid, owner, at = ids.uuid_of(id), account or api.account, START + timedelta(seconds=n * every_s)
        await api.execute(_EVENT, uuid, owner, identifier, at, 0, offset, each)
        if outcome is not None:
            await api.execute(_OUTCOME, uuid, offset, owner, outcome)
        made.append(id)
    return made


async def job(api: ApiWorld) -> dict[str, Any]:
    step = {"type": "transform", "config": {"value": 1}}
    return {"type": "job", "id": (await api.ask("POST", "/v1/jobs", {"name": "x", "step": step})).data["id"]}


async def webhook(api: ApiWorld, **more: Any) -> dict[str, Any]:
    made = await api.ask("POST", "/v1/webhooks", {"url": "https://example.com/hook", **more})
    return {"type": "webhook", "id": made.data["id"]}


async def subscribed(api: ApiWorld, pattern: str, target: Any, **more: Any) -> str:
    made = await api.ask("POST", "/v1/subscriptions", {"pattern": pattern, "target": target, **more})
    return str(made.data["id"])


async def tried(api: ApiWorld, **asked: Any) -> Any:
    answer = await api.ask("POST", "/v1/subscriptions/backtest", {"since": START.isoformat(), **asked})
    assert answer.status == 200, answer.body
    assert answer.json["meta"] == {"next_cursor": None, "has_more": False}
    return answer.data


async def test_a_new_subscription_is_told_what_it_would_have_started(api: ApiWorld) -> None:
    steps = [{"type": "transform", "config": {"value": n}} for n in range(3)]
    chain = (await api.ask("POST", "/v1/chains", {"name": "three", "steps": steps})).data["id"]
    for took_s in (1, 2, 3, 100):
        id = ids.uuid_of(ids.new_id(ids.RUN))
        await api.execute(_RUN, id, api.account, ids.uuid_of(chain), START, float(took_s))
    posted = await received(api, "e:try/new", b'{"n": 1}', b'{"n": 2}', b'{"n":  3}', b'{"n": 4}', every_s=30)
    await received(api, "e:try/other", b'{"n": 3}')
    outbox = await _count(api, "control.control_outbox")
    found = await tried(
        api, pattern="e:try/n*", filter={"n": [{"numeric": [">", 1]}]}, target={"type": "chain", "id": chain}
    )
    assert (found["subscription"], found["before"], found["complete"]) == (None, None, True)
    assert found["looked_at"] >= 5
    assert found["now_only"] == {"events": 3, "samples": posted[1:]}
    assert found["both"] == found["before_only"] == {"events": 0, "samples": []}
    cost = found["now"]
    assert (cost["matched"], cost["runs"], cost["steps"], cost["deliveries"], cost["anyway"]) == (3, 3, 9, 0, 0)
    assert (cost["bytes"], cost["peak_per_minute"]) == (25, 2)
    assert cost["peak_at"] == "2026-02-03T04:06:00Z"
    assert cost["run_time"]["runs"] == 4
    assert (cost["run_time"]["mean_s"], cost["run_time"]["total_s"]) == (26.5, 79.5)
    assert 3 < cost["run_time"]["p95_s"] < 100
    assert found["reached"] == found["until"]
    assert await _count(api, "control.control_outbox") == outbox, "nothing was made, so nothing is sent"
    assert (await api.ask("GET", f"/v1/subscriptions?target={chain}")).data == []


async def test_a_change_is_told_what_it_matches_otherwise(api: ApiWorld) -> None:
    target = await job(api)
    heard = await subscribed(api, "e:change/a", target, filter={"n": [1, 2]})
    a = await received(api, "e:change/a", b'{"n":1}', b'{"n":2}', b'{"n":3}')
    b = await received(api, "e:change/b", b'{"n":2}')
    found = await tried(api, subscription=heard, changes={"pattern": "e:change/*", "filter": {"n": [2, 3]}})
    assert found["subscription"] == heard
    assert found["before_only"] == {"events": 1, "samples": a[:1]}
    assert found["both"] == {"events": 1, "samples": a[1:2]}
    assert found["now_only"]["events"] == 2
    assert set(found["now_only"]["samples"]) == {a[2], *b}
    assert (found["before"]["matched"], found["now"]["matched"]) == (2, 3)
    as_it_is = await tried(api, subscription=heard)
    assert (as_it_is["both"]["events"], as_it_is["looked_at"]) == (2, 3), "only events of its one identifier"
    off = await tried(api, subscription=heard, changes={"enabled": False})
    assert (off["now"]["matched"], off["before_only"]["events"]) == (0, 2)
    no_filter = await tried(api, subscription=heard, changes={"filter": None})
    assert no_filter["now"]["matched"] == 3


async def test_events_count_once_and_by_their_own_outcome(api: ApiWorld) -> None:
    target = await job(api)
    for outcome in ("duplicate", "refused", "dead_lettered", "matched", None):
        await received(api, "e:outcome/x", b"{}", outcome=outcome)
    (replayed,) = await received(api, "e:outcome/x", b"{}", outcome="duplicate")
    await api.execute(_OUTCOME, ids.uuid_of(replayed), next(_offsets), api.account, "matched")
    found = await tried(api, pattern="e:outcome/x", target=target)
    assert found["now"]["matched"] == 2
    assert found["not_counted"] == {"duplicate": 2, "refused": 1, "dead_lettered": 1}
    assert (found["undecided"], found["unreadable"]) == (1, 0)


async def test_what_a_webhook_gets_anyway_is_told(api: ApiWorld) -> None:
    target = await webhook(api, events=["e:shared/a*"])
    await subscribed(api, "e:shared/*", target, filter={"n": [1]})
    await subscribed(api, "e:shared/*", await job(api))
    await received(api, "e:shared/ab", b'{"n":1}', b'{"n":2}')
    await received(api, "e:shared/b", b'{"n":1}', b'{"n":2}', b'{"n":2}')
    found = await tried(api, pattern="e:shared/*", target=target)
    cost = found["now"]
    assert (cost["matched"], cost["anyway"], cost["deliveries"], cost["runs"]) == (5, 3, 2, 0)
    assert (cost["steps"], cost["run_time"]) == (0, None)
    managed = (await api.ask("GET", f"/v1/subscriptions?target={target['id']}")).data[-1]["id"]
    found = await tried(api, subscription=managed, changes={"pattern": "e:shared/b"})
    assert (found["before"]["matched"], found["before"]["anyway"]) == (2, 1)
    assert (found["now"]["matched"], found["now"]["anyway"]) == (3, 1)


async def test_the_platforms_own_events_must_be_named(api: ApiWorld) -> None:
    target = await job(api)
    await received(api, "e:millrace/webhook.disabled", b"{}")
    everything = await tried(api, pattern="e:*/webhook.disabled", target=target)
    named = await tried(api, pattern="e:millrace/*", target=target)
    assert (everything["now"]["matched"], named["now"]["matched"]) == (0, 1)


async def test_a_disabled_webhook_is_no_target_for_a_trial_and_starts_nothing_before(api: ApiWorld) -> None:
    off, target = await webhook(api, enabled=False), await job(api)
    await received(api, "e:off/x", b"{}")
    answer = await api.ask("POST", "/v1/subscriptions/backtest", {"pattern": "e:off/x", "target": off})
    assert (answer.status, "enable it first" in answer.body.decode()) == (409, True)
    found = await tried(api, subscription=await subscribed(api, "e:off/x", off), changes={"target": target})
    assert (found["before"]["matched"], found["now_only"]["events"]) == (0, 1)


NO_JOB = {"type": "job", "id": ids.new_id(ids.JOB)}
WHOLE = {"pattern": "e:a/b", "target": NO_JOB}


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ({"pattern": "e:a/b"}, "body.target"),
        ({"target": NO_JOB}, "body.pattern"),
        ({}, "body.pattern"),
        (WHOLE, "body.target.id"),
        ({**WHOLE, "target": {"type": "webhook", "id": ids.new_id(ids.ENDPOINT)}}, "body.target.id"),
        ({**WHOLE, "target": {"type": "webhook", "id": "we_x"}}, "body.target.id"),
        ({**WHOLE, "pattern": "all"}, "body.pattern"),
        ({**WHOLE, "filter": {"n": 1}}, "body.filter"),
        ({**WHOLE, "where": "input.n +"}, "body.where"),
        ({**WHOLE, "changes": {}}, "body.changes"),
        ({"changes": {"pattern": "e:a/b"}}, "body.changes"),
        ({"subscription": ids.new_id(ids.SUBSCRIPTION)}, "body.subscription"),
        ({"subscription": "HEARD", "pattern": "e:a/b"}, "body.pattern"),
        ({"subscription": "HEARD", "changes": {"pattern": "all"}}, "body.changes.pattern"),
        ({"subscription": "HEARD", "changes": {"where": "("}}, "body.changes.where"),
        ({"subscription": "HEARD", "changes": {"target": NO_JOB}}, "body.changes.target.id"),
        ({"subscription": "HEARD", "changes": {"priority": "high"}}, "body.changes.priority"),
        ({"subscription": "HEARD", "days": 31}, "body.days"),
        ({"subscription": "HEARD", "days": 0}, "body.days"),
        ({"subscription": "HEARD", "days": 3, "since": "2026-01-01T00:00:00Z"}, "body.days"),
        ({"subscription": "HEARD", "until": "2999-01-01T00:00:00Z"}, "body.until"),
        ({"subscription": "HEARD", "since": "2999-01-01T00:00:00Z"}, "body.since"),
        ({"subscription": "HEARD", "cursor": "AAAA"}, "cursor"),
    ],
)
async def test_what_is_wrong_is_named(api: ApiWorld, asked: dict[str, Any], where: str) -> None:
    if asked.get("subscription") == "HEARD":
        asked = {**asked, "subscription": await subscribed(api, "e:wrong/x", await job(api))}
    answer = await api.ask("POST", "/v1/subscriptions/backtest", asked)
    assert answer.status == 400, answer.body
    named = [wrong["where"] for wrong in answer.error["details"].get("errors", [])]
    assert named == [where] or answer.error["message"].startswith(f"{where}:"), answer.body


async def test_nobody_tries_on_anothers_events_subscriptions_or_targets(api: ApiWorld) -> None:
    target = await job(api)
    heard = await subscribed(api, "e:own/x", target)
    await received(api, "e:own/x", b"{}", account="acc_another")
    assert (await tried(api, subscription=heard))["looked_at"] == 0
    for asked in ({"subscription": heard}, {"pattern": "e:own/x", "target": target}):
        assert (await api.ask_b("POST", "/v1/subscriptions/backtest", asked)).status == 400


@pytest.mark.parametrize(
    ("scopes", "status"),
    [(["read:events"], 403), (["read:subscriptions"], 403), (["read:events", "read:subscriptions"], 200)],
)
async def test_it_takes_the_right_to_see_events_and_subscriptions(
    api: ApiWorld, scopes: list[str], status: int
) -> None:
    heard = await subscribed(api, "e:scopes/x", await job(api))
    key = (await api.ask("POST", "/v1/keys", {"name": "some", "scopes": scopes})).data["key"]
    answer = await api.ask("POST", "/v1/subscriptions/backtest", {"subscription": heard}, key=key)
    assert answer.status == status


class Hurried(SystemClock):
    """A clock by which each look at it costs a second."""

    def __init__(self) -> None:
        super().__init__()
        self._looks = 0

    def monotonic(self) -> float:
        self._looks += 1
        return float(self._looks)


async def test_a_long_one_goes_on_where_it_ended_and_looks_at_each_event_once(api: ApiWorld) -> None:
    target = Target("job", (await job(api))["id"])
    posted = await received(api, "e:long/x", *[b"{}"] * 11, every_s=0)  # of one millisecond, as a batch is
    asked = Asked(new=Wanted("e:long/x", target), since=START - timedelta(seconds=1))
    reports: list[Report] = []
    async with open_pool(api.dsn, name="test") as pool:
        backtests, on = Backtests(Database(pool), Hurried()), None
        while not reports or on is not None:
            report, on = await backtests.report(api.account, asked, on=on)
            reports.append(report)
    assert len(reports) > 2
    assert [report.complete for report in reports] == [*[False] * (len(reports) - 1), True]
    assert {report.until for report in reports} == {reports[0].until}
    assert [report.since for report in reports[1:]] == [report.reached for report in reports[:-1]]
    assert sum(report.looked_at for report in reports) == 11
    samples: Sequence[str] = [id for report in reports for id in report.now_only.samples]
    assert sorted(samples) == sorted(posted)


async def test_an_account_has_one_under_way(api: ApiWorld) -> None:
    asked = Asked(new=Wanted("e:busy/x", Target("job", (await job(api))["id"])))
    async with open_pool(api.dsn, name="test") as pool:
        backtests = Backtests(Database(pool), SystemClock())
        at_once = (backtests.report(api.account, asked) for _ in range(2))
        first, second = await asyncio.gather(*at_once, return_exceptions=True)
        assert not isinstance(first, BaseException)
        assert isinstance(second, Conflict)
        assert (await backtests.report(api.account, asked))[0].complete


async def test_the_command_line_tries_new_ones_and_changes(api: ApiWorld) -> None:
    target = await job(api)
    await received(api, "e:typed/x", b'{"n":1}', b'{"n":2}')
    since = ("--since", START.isoformat())
    heard = await subscribed(api, "e:typed/x", target, filter={"n": [1]})
    new = await typed(api, "--pattern", "e:typed/*", "--target", target["id"], "--where", "input.n == 2", *since)
    assert (new["now"]["matched"], new["before"], new["next_cursor"]) == (1, None, None)
    changed = await typed(api, heard, "--filter", "null", *since)
    assert (changed["both"]["events"], changed["now_only"]["events"]) == (1, 1)


async def typed(api: ApiWorld, *arguments: str) -> Any:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "millrace_cli", "backtest", *arguments],
        capture_output=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "MILLRACE_URL": api.url, "MILLRACE_KEY": api.key},
    )
    assert done.returncode == 0, done.stderr
    return orjson.loads(done.stdout)


def test_a_cursor_is_the_place_and_the_end_exactly() -> None:
    rest = Span((START + timedelta(microseconds=678_901), ids.uuid_of(ids.new_id(ids.EVENT))), START)
    cursors = Cursors(b"secret")
    assert from_cursor(cursors, to_cursor(cursors, rest, "acc_1", "x"), "acc_1", "x") == rest


async def test_outcomes_are_looked_up_and_no_partition_is_read_whole(database: str) -> None:
    """As a plain join the planner reads every day's outcomes for each page: seconds, where there are many."""
    await migrate(database)
    connection = await connect(database, name="test")
    days = [ids.DAY_MS * (20_000 + n) for n in range(5)]
    await Projection().ensure_days(connection, [day // ids.DAY_MS for day in days], now_ms=days[-1])
    events = [ids.uuid_of(ids.derived_id(ids.EVENT, day, str(n))) for day in days for n in range(1_000)]
    at = datetime.fromtimestamp(days[0] / 1000, UTC)
    rows = [(id, "acc_1", "e:a/b", at, 0, 1, n, b"{}") for n, id in enumerate(events)]
    await connection.executemany(_EVENT.replace("4, $5, 1, $6, $7", "4, $5, $6, $7, $8"), rows)
    await connection.executemany(_OUTCOME, [(id, n, "acc_1", "matched") for n, id in enumerate(events)])
    await connection.execute("ANALYZE")
    statement = queries.load("api/backtests")["own_outcomes"]
    assert len(await connection.fetch(statement, "acc_1", events[2_000:2_400])) == 400
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", "acc_1", events[2_000:2_400])
    await connection.close()
    scans = [
        node for node in _nodes(orjson.loads(explained)[0]["Plan"]) if node.get("Actual Loops") and "Alias" in node
    ]
    read = {node["Relation Name"]: node["Node Type"] for node in scans if "Relation Name" in node}
    assert any(name.startswith("event_outcomes") for name in read)
    assert {kind for name, kind in read.items() if not name.endswith("_default")} <= {"Index Scan", "Index Only Scan"}


def _nodes(plan: Any) -> Iterator[Any]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


async def _count(api: ApiWorld, table: str) -> int:
    connection = await asyncpg.connect(api.dsn)
    try:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))
    finally:
        await connection.close()

"""Traces through HTTP: one story in order, a reason for each thing that is not over, and what is left out."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from millrace_core import ids
from millrace_core.clock import SystemClock
from millrace_core.limits import TRACE_ATTEMPTS_MAX, TRACE_CHILDREN_MAX, TRACE_REPEATS_MAX
from tests.support.api_world import ApiWorld

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC) + timedelta(days=1)
STEP = """INSERT INTO read.steps (run, node, account, status, attempts, started_at, retry_at)
    VALUES ($1, 'a', $2, $3, $4, $5, $6)"""


def bare(id: str) -> UUID:
    return ids.uuid_of(id)


async def traced(api: ApiWorld, kind: str, id: str) -> Any:
    return (await api.ask("GET", f"/v1/{kind}/{id}/trace")).data


async def decided(
    api: ApiWorld,
    event: str,
    outcome: str = "matched",
    reason: str | None = None,
    *,
    offset: int = 0,
    first: str | None = None,
) -> None:
    await api.execute(
        "INSERT INTO read.event_outcomes VALUES ($1, 0, $5, $2, $3, now(), $6, $4)",
        bare(event), api.account, outcome, reason, offset, None if first is None else bare(first),
    )  # fmt: skip


async def matched(api: ApiWorld, event: str, kind: str, child: str, *, account: str | None = None) -> None:
    await api.execute(
        "INSERT INTO read.event_matches VALUES ($1, $2, $3, $4)", bare(event), kind, bare(child), account or api.account
    )


async def test_an_event_without_an_outcome_waits_for_the_matcher(api: ApiWorld) -> None:
    event = await api.projected("events")
    told = await traced(api, "events", event)
    assert [moment["kind"] for moment in told["moments"]] == ["event.received"]
    (wait,) = told["waits"]
    assert (wait["of"], wait["kind"]) == (event, "matcher")
    assert "the matcher has not decided it yet" in wait["text"]
    assert not told["is_over"]


@pytest.mark.parametrize(
    ("outcome", "reason", "says"),
    [
        ("unmatched", None, "no subscription in force at that moment matched it"),
        ("dead_lettered", "not JSON", "dead lettered: not JSON"),
        ("refused", None, "refused: no reason was given"),
    ],
)
async def test_an_event_that_started_nothing_is_over(
    api: ApiWorld, outcome: str, reason: str | None, says: str
) -> None:
    event = await api.projected("events")
    await decided(api, event, outcome, reason)
    told = await traced(api, "events", event)
    assert told["is_over"]
    assert says in told["moments"][-1]["text"]


async def test_a_duplicate_names_the_event_that_counts(api: ApiWorld) -> None:
    """As a uniqueKey on both sides of midnight makes it: two events, of which one counts."""
    event, first = await api.projected("events"), ids.new_id(ids.EVENT)
    await decided(api, event, "duplicate", first=first)
    told = await traced(api, "events", event)
    assert [moment["kind"] for moment in told["moments"]] == ["event.received", "event.decided"]
    assert f"duplicate of {first}" in told["moments"][-1]["text"]


async def test_other_records_of_an_event_are_told_for_what_they_are(api: ApiWorld) -> None:
    event = await api.projected("events")
    await decided(api, event, "unmatched")
    await decided(api, event, "duplicate", offset=5, first=event)
    await decided(api, event, offset=6)
    await decided(api, event, "duplicate", "replay rpl_1 had written it already", offset=7, first=event)
    told = await traced(api, "events", event)
    _, own, posted, matched_later, written_twice = told["moments"]
    assert own["text"].endswith("it started nothing")
    assert (posted["kind"], matched_later["kind"], written_twice["kind"]) == (
        "event.repeated", "event.resent", "event.resent",
    )  # fmt: skip
    assert "offset 5" in posted["text"]
    assert matched_later["text"].endswith("at offset 6 of `events` partition 0: matched")
    assert written_twice["text"].endswith(": duplicate: replay rpl_1 had written it already")


async def test_of_many_other_records_those_that_may_have_started_something_come_first(api: ApiWorld) -> None:
    event = await api.projected("events")
    await decided(api, event)
    await api.execute(
        """INSERT INTO read.event_outcomes
           SELECT $1, 0, n, $2, 'duplicate', now(), $1, NULL FROM generate_series(1, $3) AS n""",
        bare(event), api.account, TRACE_REPEATS_MAX + 2,
    )  # fmt: skip
    await decided(api, event, offset=1_000)
    told = await traced(api, "events", event)
    assert [moment["kind"] for moment in told["moments"]].count("event.resent") == 1
    assert told["left_out"]["repeats"] == 3


async def test_a_child_that_is_only_named_says_so(api: ApiWorld) -> None:
    event, run = await api.projected("events"), ids.new_id(ids.RUN)
    await decided(api, event)
    await matched(api, event, "run", run)
    (wait,) = (await traced(api, "events", event))["waits"]
    assert (wait["of"], wait["kind"]) == (run, "read_models")
    assert "the matcher named this run" in wait["text"]


async def test_of_many_children_those_that_wait_come_first(api: ApiWorld) -> None:
    event = await api.projected("events")
    await decided(api, event)
    await matched(api, event, "run", late := await api.projected("runs"))
    await api.execute(
        """WITH made AS (
               INSERT INTO read.runs (id, account, status, created_at, ended_at)
               SELECT gen_random_uuid(), $1, 'completed', now(), now() FROM generate_series(1, $2) RETURNING id)
           INSERT INTO read.event_matches SELECT $3, 'run', id, $1 FROM made""",
        api.account, TRACE_CHILDREN_MAX, bare(event),
    )  # fmt: skip
    told = await traced(api, "events", event)
    assert [wait["of"] for wait in told["waits"]] == [late]
    assert told["left_out"] == {"children": 1, "attempts": 0, "repeats": 0}


async def test_another_accounts_child_is_not_told(api: ApiWorld) -> None:
    event, run = await api.projected("events"), await api.projected("runs")
    await decided(api, event)
    await matched(api, event, "run", run, account="someone-else")
    assert (await traced(api, "events", event))["is_over"]
    for kind, id in (("events", event), ("runs", run), ("deliveries", await api.projected("deliveries"))):
        assert (await api.ask_b("GET", f"/v1/{kind}/{id}/trace")).status == 404


@pytest.mark.parametrize(
    ("status", "attempts", "retry_at", "kind", "says"),
    [
        ("running", 2, None, "executor", "step a, attempt 2 was handed to the executor"),
        ("retrying", 1, LATER, "timer", "waiting for timer until "),
        ("retrying", 1, AT, "orchestrator", "the next was due 2026-03-01T12:00:00.000Z"),
        ("completed", 1, None, "orchestrator", "step a, attempt 1 completed, and the orchestrator has not said"),
    ],
)
async def test_a_run_says_what_it_waits_for(
    api: ApiWorld, status: str, attempts: int, retry_at: datetime | None, kind: str, says: str
) -> None:
    run = await api.projected("runs")
    await api.execute(STEP, bare(run), api.account, status, attempts, AT, retry_at)
    (wait,) = (await traced(api, "runs", run))["waits"]
    assert wait["kind"] == kind
    assert says in wait["text"]


async def test_a_run_that_nothing_has_begun_says_so(api: ApiWorld) -> None:
    run = await api.projected("runs")
    (wait,) = (await traced(api, "runs", run))["waits"]
    assert "has not begun a step yet" in wait["text"]
    assert wait["kind"] == "orchestrator"
    await api.execute("UPDATE read.runs SET status = 'queued' WHERE id = $1", bare(run))
    (wait,) = (await traced(api, "runs", run))["waits"]
    assert "the orchestrator has not taken it yet" in wait["text"]
    assert wait["kind"] == "orchestrator"
    await api.execute("UPDATE read.runs SET created_at = NULL WHERE id = $1", bare(run))
    (wait,) = (await traced(api, "runs", run))["waits"]
    assert wait["kind"] == "read_models"


@pytest.mark.parametrize(
    ("reason", "until", "says"),
    [
        ("concurrency", None, 'waiting for concurrency of key "gold" of sub_'),
        ("throttle", LATER, "throttled until "),
        ("debounce", LATER, "debounced until "),
        ("batch", LATER, 'waiting for its batch of key "gold" of sub_'),
        ("drain", None, "drains: it lets nothing begin"),
        ("account", None, "the flow of the account has yet to say"),
        ("account_concurrency", None, "waiting for concurrency of the account"),
        ("account_throttle", LATER, "as many runs of the account began lately as may"),
        ("account_drain", None, "the account drains"),
    ],
)
async def test_a_run_that_its_flow_holds_back_says_why(
    api: ApiWorld, reason: str, until: datetime | None, says: str
) -> None:
    run = await api.projected("runs")
    sub = bare(ids.new_id(ids.SUBSCRIPTION))
    await api.execute(
        """UPDATE read.runs SET status = 'queued', subscription = $4, flow_key = 'gold', waiting_reason = $2,
           waiting_until = $3 WHERE id = $1""",
        bare(run), reason, until, sub,
    )  # fmt: skip
    (wait,) = (await traced(api, "runs", run))["waits"]
    assert wait["kind"] == "flow"
    assert says in wait["text"]
    assert (wait["until"] is None) == (until is None)
    shown = (await api.ask("GET", f"/v1/runs/{run}")).data
    assert (shown["status"], shown["flow_key"], shown["waiting"]["reason"]) == ("queued", "gold", reason)
    await api.execute("UPDATE read.runs SET status = 'running' WHERE id = $1", bare(run))
    assert (await api.ask("GET", f"/v1/runs/{run}")).data["waiting"] is None


async def test_steps_of_a_run_are_told_in_order_and_counted_beyond_the_bound(api: ApiWorld) -> None:
    run = await api.projected("runs")
    await api.execute(
        """INSERT INTO read.step_attempts (run, node, attempt, account, status, started_at, ended_at, duration_ms,
                                           error_code, error_message)
           SELECT $1, 'n' || n, 1, $2, 'failed', $3::timestamptz + n * interval '1 s',
                  $3::timestamptz + n * interval '1.5 s', 5, 'boom', 'it broke'
           FROM generate_series(1, $4) AS n""",
        bare(run), api.account, AT, TRACE_ATTEMPTS_MAX + 7,
    )  # fmt: skip
    told = await traced(api, "runs", run)
    assert told["left_out"]["attempts"] == 7
    times = [datetime.fromisoformat(moment["at"]) for moment in told["moments"]]
    assert times == sorted(times)
    assert any("attempt 1 failed after 5 ms: boom: it broke" in moment["text"] for moment in told["moments"])


async def test_a_queued_delivery_says_what_it_is_behind(api: ApiWorld) -> None:
    first, second = await api.projected("deliveries"), await api.projected("deliveries")
    other = await api.projected("deliveries")
    endpoint = bare(ids.new_id(ids.ENDPOINT))
    for id in (first, second):
        await api.execute("UPDATE read.deliveries SET endpoint = $2 WHERE id = $1", bare(id), endpoint)
    for id, says in ((first, "the first:"), (second, "behind 1 older one:"), (other, "the first:")):
        (wait,) = (await traced(api, "deliveries", id))["waits"]
        assert wait["kind"] == "dispatcher"
        assert says in wait["text"]
    await api.execute("UPDATE read.deliveries SET created_at = NULL WHERE id = $1", bare(other))
    (wait,) = (await traced(api, "deliveries", other))["waits"]
    assert wait["kind"] == "read_models"


async def test_a_queued_delivery_of_an_endpoint_with_a_rate_waits_for_that(api: ApiWorld) -> None:
    endpoint = (await api.ask("POST", "/v1/webhooks", {"url": "https://example.test/", "rate": 0.5})).data["id"]
    first, second = await api.projected("deliveries"), await api.projected("deliveries")
    for id in (first, second):
        await api.execute("UPDATE read.deliveries SET endpoint = $2 WHERE id = $1", bare(id), bare(endpoint))
    for id, behind in ((first, "the first"), (second, "behind 1 older one")):
        (wait,) = (await traced(api, "deliveries", id))["waits"]
        assert wait["kind"] == "endpoint_rate"
        assert wait["text"] == f"waiting for the endpoint's rate: {endpoint} takes 0.5 a second, {behind}"


@pytest.mark.parametrize(
    ("code", "due", "kind", "says"),
    [
        ("http_500", LATER, "timer", "waiting for timer until "),
        ("endpoint_paused", LATER, "endpoint_paused", "waiting for timer until "),
        ("http_500", AT, "dispatcher", "attempt 3 is due"),
    ],
)
async def test_a_delivery_that_is_tried_again_says_when(
    api: ApiWorld, code: str, due: datetime, kind: str, says: str
) -> None:
    id = await api.projected("deliveries")
    await api.execute(
        """UPDATE read.deliveries SET status = 'retrying', attempts = 2, next_attempt_at = $2, error_code = $3
           WHERE id = $1""",
        bare(id), due, code,
    )  # fmt: skip
    (wait,) = (await traced(api, "deliveries", id))["waits"]
    assert wait["kind"] == kind
    assert says in wait["text"]


async def test_what_is_not_there_has_no_trace(api: ApiWorld) -> None:
    for path in ("events/evt_" + "0" * 32, "runs/nonsense", "deliveries/evt_" + "0" * 32):
        assert (await api.ask("GET", f"/v1/{path}/trace")).status == 404

"""The story of one event, run or delivery: what happened, in order, and for what is not over what it waits for.

A story is made of the read models' rows alone, in one view of them, so it is complete up to where the projector stands.
Whatever is unfinished has exactly one wait with its reason, as a kind and in words. Times are those of the services
that did the work; what has the same time is told in the order of the way. Not here: bodies, inputs and outputs, which
the things themselves show.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from millrace_api.application.notation import stored, stored_run, written, written_plan
from millrace_api.application.problems import NotFound
from millrace_api.application.runs import LIVE
from millrace_core import ids
from millrace_core.limits import (
    TRACE_ATTEMPTS_MAX,
    TRACE_CHILDREN_LOOKED_AT_MAX,
    TRACE_CHILDREN_MAX,
    TRACE_QUEUED_LOOKED_AT_MAX,
    TRACE_REPEATS_MAX,
)
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/traces")
_COUNT_MATCHES = queries.load("api/events")["count_matches"]

Kind = Literal[
    "event.received",
    "event.decided",
    "event.repeated",
    "event.resent",
    "run.asked",
    "run.started",
    "step.started",
    "step.completed",
    "step.failed",
    "run.ended",
    "delivery.asked",
    "delivery.attempted",
    "delivery.ended",
]
WaitKind = Literal[
    "matcher",
    "orchestrator",
    "flow",
    "executor",
    "dispatcher",
    "timer",
    "endpoint_paused",
    "endpoint_rate",
    "read_models",
]
"""Who or what moves next. `flow` = a flow holds it back. `read_models` = what shall happen is decided, and the
rows that say it are not there yet."""

_ORDER = {kind: n for n, kind in enumerate(Kind.__args__)}  # type: ignore[attr-defined]
_LIVE_DELIVERY = frozenset({"queued", "retrying"})


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened to `of`, in words."""

    at: datetime
    kind: Kind
    of: str
    text: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Why `of` is not over. `until` is when it goes on by itself, if that is known."""

    of: str
    kind: WaitKind
    since: datetime | None
    until: datetime | None
    text: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What there is and is not told: children of an event, their attempts, other records of the event."""

    children: int = 0
    attempts: int = 0
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """`is_over` = nothing more will happen to it, or to any child that was looked at."""

    id: str
    is_over: bool
    waits: list[Wait]
    moments: list[Moment]
    left_out: LeftOut


async def of_event(tx: Connection, account: str, id: str) -> Trace:
    uuid = stored(id, "event", ids.EVENT)
    row = await tx.fetchrow(_SQL["event"], account, uuid)
    if row is None:
        raise NotFound("event", id)
    place = row["partition"], row["offset"]
    repeats = await tx.fetch(_SQL["repeats_of_event"], account, uuid, *place, TRACE_REPEATS_MAX)
    children = await tx.fetch(
        _SQL["children_of_event"], account, uuid, TRACE_CHILDREN_MAX, TRACE_CHILDREN_LOOKED_AT_MAX
    )
    runs = await _runs(tx, account, [child["child"] for child in children if child["kind"] == "run"])
    deliveries = await _deliveries(tx, account, [child["child"] for child in children if child["kind"] == "delivery"])
    told = _Told(
        moments=[*_event_moments(row, children), *(_repeat(row, repeat) for repeat in repeats)],
        waits=[*_event_waits(row), *(_not_known(row, child) for child in children if not child["is_known"])],
    )
    named = _total(children)
    if named == TRACE_CHILDREN_LOOKED_AT_MAX:
        named = await tx.fetchval(_COUNT_MATCHES, account, uuid)
    left_out = LeftOut(
        children=named - len(children),
        attempts=runs.left_out + deliveries.left_out,
        repeats=_total(repeats) - len(repeats),
    )
    return _trace(id, (told, runs, deliveries), left_out)


async def of_run(tx: Connection, account: str, id: str) -> Trace:
    told = await _runs(tx, account, [stored_run(id)])
    if not told.found:
        raise NotFound("run", id)
    return _trace(id, (told,), LeftOut(attempts=told.left_out))


async def of_delivery(tx: Connection, account: str, id: str) -> Trace:
    told = await _deliveries(tx, account, [stored(id, "delivery", ids.DELIVERY)])
    if not told.found:
        raise NotFound("delivery", id)
    return _trace(id, (told,), LeftOut(attempts=told.left_out))


@dataclass(frozen=True, slots=True)
class _Told:
    """What some things went through."""

    moments: list[Moment]
    waits: list[Wait]
    found: int = 0
    left_out: int = 0


def _trace(id: str, told: Sequence[_Told], left_out: LeftOut) -> Trace:
    moments = [moment for each in told for moment in each.moments]
    moments.sort(key=lambda moment: (moment.at, _ORDER[moment.kind]))
    waits = [wait for each in told for wait in each.waits]
    return Trace(id, not waits, waits, moments, left_out)


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _event_moments(row: Row, children: Sequence[Row]) -> Iterator[Moment]:
    id = ids.prefixed(ids.EVENT, row["id"])
    again = f", sent again as {row['replay']}" if row["replay"] is not None else ""
    yield Moment(
        row["received_at"], "event.received", id, f"{row['identifier']} was received{again}; it is {_place(row)}"
    )
    if row["outcome"] is not None:
        yield Moment(row["decided_at"], "event.decided", id, _decision(row, children))


def _decision(row: Row, children: Sequence[Row]) -> str:
    if row["outcome"] == "matched":
        runs = sum(child["kind"] == "run" for child in children)
        left_out = _total(children) - len(children)
        more = f" and {left_out} more that are not told here" if left_out else ""
        started = f"{_count(runs, 'run')} and {_count(len(children) - runs, 'delivery', 'deliveries')}{more}"
        return f"matched by {_subscriptions(children)}: {started}"
    if row["outcome"] == "unmatched":
        return "no subscription in force at that moment matched it: it started nothing"
    if row["outcome"] == "duplicate":
        first = written(ids.EVENT, row["duplicate_of"]) or "an earlier event"
        return f"duplicate of {first}, which came earlier with the same uniqueKey: that one alone counts"
    return _outcome(row)


def _outcome(row: Row) -> str:
    return f"{row['outcome'].replace('_', ' ')}: {row['reason'] or 'no reason was given'}"


def _subscriptions(children: Sequence[Row]) -> str:
    known = {child["subscription"] for child in children} - {None}
    return ", ".join(sorted(ids.prefixed(ids.SUBSCRIPTION, id) for id in known)) or "subscriptions that are not known"


def _repeat(row: Row, repeat: Row) -> Moment:
    """A duplicate with a reason is no post: a replay wrote the event twice."""
    id, outcome, reason = ids.prefixed(ids.EVENT, row["id"]), repeat["outcome"], repeat["reason"]
    if outcome == "duplicate" and reason is None:
        text = f"posted again with the same uniqueKey ({_place(repeat)}) and counted once"
        return Moment(repeat["decided_at"], "event.repeated", id, text)
    came_to = outcome if outcome in ("matched", "unmatched") else _outcome(repeat)
    text = f"another record of it, as a replay or a dead letter sent again leaves, is {_place(repeat)}: {came_to}"
    return Moment(repeat["decided_at"], "event.resent", id, text)


def _event_waits(row: Row) -> Iterator[Wait]:
    if row["outcome"] is None:
        text = f"{_place(row)}, and the matcher has not decided it yet, or its decision is not in the read models yet"
        yield Wait(ids.prefixed(ids.EVENT, row["id"]), "matcher", row["received_at"], None, text)


def _not_known(row: Row, child: Row) -> Wait:
    prefix = ids.RUN if child["kind"] == "run" else ids.DELIVERY
    text = f"the matcher named this {child['kind']}, and its request is not in the read models yet"
    return Wait(ids.prefixed(prefix, child["child"]), "read_models", row["decided_at"], None, text)


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────
async def _runs(tx: Connection, account: str, wanted: list[UUID]) -> _Told:
    if not wanted:
        return _Told([], [])
    runs = await tx.fetch(_SQL["runs"], account, wanted)
    steps = {step["run"]: step for step in await tx.fetch(_SQL["current_steps"], account, wanted)}
    attempts = await tx.fetch(_SQL["step_attempts"], account, wanted, TRACE_ATTEMPTS_MAX)
    moments = [moment for run in runs for moment in _run_moments(run)]
    moments += [moment for attempt in attempts for moment in _step_moments(attempt)]
    waits = [_run_wait(run, steps.get(run["id"])) for run in runs if run["status"] in LIVE]
    return _Told(moments, waits, found=len(runs), left_out=_total(attempts) - len(attempts))


def _run_moments(run: Row) -> Iterator[Moment]:
    id = ids.prefixed(ids.RUN, run["id"])
    if run["created_at"] is not None:
        why = f"by {run['requested_by']}" if run["requested_by"] is not None else _cause(run)
        yield Moment(run["created_at"], "run.asked", id, f"a run of {_plan(run)} was asked for {why}")
    if run["started_at"] is not None:
        yield Moment(run["started_at"], "run.started", id, "the orchestrator began it")
    if run["ended_at"] is not None:
        yield Moment(run["ended_at"], "run.ended", id, f"{run['status'].replace('_', ' ')}{_into(run)}{_error(run)}")


def _into(run: Row) -> str:
    into = written(ids.RUN, run["absorbed_into"])
    return "" if into is None else f" into {into}: its event is part of that run"


def _cause(run: Row) -> str:
    event, subscription = written(ids.EVENT, run["event"]), written(ids.SUBSCRIPTION, run["subscription"])
    return f"by {subscription or 'a subscription'} for {event}" if event is not None else "by hand"


def _plan(run: Row) -> str:
    id = written_plan(run["plan"], run["plan_kind"]) or "a plan that cannot be read"
    version = f" version {run['plan_version']}" if run["plan_version"] is not None else ""
    return f"{id}{version}" + (f' "{run["plan_name"]}"' if run["plan_name"] else "")


def _step_moments(attempt: Row) -> Iterator[Moment]:
    of, name = ids.prefixed(ids.RUN, attempt["run"]), f"step {attempt['node']}, attempt {attempt['attempt']}"
    if attempt["started_at"] is not None:
        yield Moment(attempt["started_at"], "step.started", of, f"{name} was handed to the executor")
    if attempt["ended_at"] is None:
        return
    took = f" after {attempt['duration_ms']:.0f} ms" if attempt["duration_ms"] is not None else ""
    if attempt["status"] == "completed":
        yield Moment(attempt["ended_at"], "step.completed", of, f"{name} completed{took}")
    else:
        text = f"{name} failed{took}{_error(attempt)}{_next(attempt['retry_at'])}"
        yield Moment(attempt["ended_at"], "step.failed", of, text)


def _run_wait(run: Row, step: Row | None) -> Wait:
    id = ids.prefixed(ids.RUN, run["id"])
    if run["created_at"] is None:
        text = "what it does is in the read models, and its own request is not yet"
        return Wait(id, "read_models", run["started_at"], None, text)
    if run["status"] == "queued" and run["waiting_reason"] is not None:
        return Wait(id, "flow", run["created_at"], run["waiting_until"], _held_back(run))
    if run["status"] == "queued":
        text = "on `run-commands`: the orchestrator has not taken it yet"
        return Wait(id, "orchestrator", run["created_at"], None, text)
    if step is None:
        text = "the orchestrator began it and has not begun a step yet"
        return Wait(id, "orchestrator", run["started_at"], None, text)
    name = f"step {step['node']}, attempt {step['attempts']}"
    if step["status"] == "running":
        text = f"{name} was handed to the executor: it is in its account's lane, at work, or its result is on its way"
        return Wait(id, "executor", step["started_at"], None, text)
    if step["is_ahead"]:
        text = f"waiting for timer until {_iso(step['retry_at'])}: {name} failed and is tried again then"
        return Wait(id, "timer", step["started_at"], step["retry_at"], text)
    if step["status"] == "retrying":
        text = f"{name} failed, and the next was due {_iso(step['retry_at'])}: the orchestrator has not begun it yet"
        return Wait(id, "orchestrator", step["retry_at"], None, text)
    text = f"{name} {step['status']}, and the orchestrator has not said yet what comes next"
    return Wait(id, "orchestrator", step["ended_at"], None, text)


def _held_back(run: Row) -> str:
    """What the flow waits for, as it was last told."""
    of = written(ids.SUBSCRIPTION, run["subscription"]) or "its subscription"
    key = f' of key "{run["flow_key"]}"' if run["flow_key"] else ""
    until = "" if run["waiting_until"] is None else f" until {_iso(run['waiting_until'])}"
    match run["waiting_reason"]:
        case "account":
            return f"{of} let it go: the flow of the account has yet to say when it begins"
        case "account_concurrency":
            return "waiting for concurrency of the account: as many runs are at work as may"
        case "account_throttle":
            return f"throttled{until}: as many runs of the account began lately as may"
        case "account_drain":
            return "the account drains: nothing begins until its flow says otherwise"
        case "concurrency":
            return f"waiting for concurrency{key} of {of}: as many runs are at work as may"
        case "throttle":
            return f"throttled{until}: as many runs{key} of {of} began lately as may"
        case "debounce":
            return f"debounced{until}: further events{key} of {of} put that off, within its longest wait"
        case "batch":
            return f"waiting for its batch{key} of {of} to fill,{until} at the latest"
        case "drain":
            return f"{of} drains: it lets nothing begin until its flow says otherwise"
    return f"held back by the flow of {of}: {run['waiting_reason']}"


# ── deliveries ──────────────────────────────────────────────────────────────────────────────────────────────────────
async def _deliveries(tx: Connection, account: str, wanted: list[UUID]) -> _Told:
    if not wanted:
        return _Told([], [])
    deliveries = await tx.fetch(_SQL["deliveries"], account, wanted)
    attempts = await tx.fetch(_SQL["delivery_attempts"], account, wanted, TRACE_ATTEMPTS_MAX)
    moments = [moment for delivery in deliveries for moment in _delivery_moments(delivery)]
    moments += [_attempt(attempt) for attempt in attempts]
    live = [row for row in deliveries if row["status"] in _LIVE_DELIVERY]
    waits = [_delivery_wait(row, await _before(tx, account, row)) for row in live]
    return _Told(moments, waits, found=len(deliveries), left_out=_total(attempts) - len(attempts))


async def _before(tx: Connection, account: str, row: Row) -> int:
    if row["status"] != "queued" or row["created_at"] is None:
        return 0
    place = row["created_at"], row["id"], row["endpoint"]
    return int(await tx.fetchval(_SQL["deliveries_before"], account, *place, TRACE_QUEUED_LOOKED_AT_MAX))


def _delivery_moments(row: Row) -> Iterator[Moment]:
    id, endpoint = ids.prefixed(ids.DELIVERY, row["id"]), ids.prefixed(ids.ENDPOINT, row["endpoint"])
    if row["created_at"] is not None:
        event = ids.prefixed(ids.EVENT, row["event"])
        yield Moment(row["created_at"], "delivery.asked", id, f"a delivery of {event} to {endpoint} was asked for")
    if row["ended_at"] is not None:
        text = f"{row['status'].replace('_', ' ')}{_error(row)}"
        yield Moment(row["ended_at"], "delivery.ended", id, text)


def _attempt(row: Row) -> Moment:
    answer = f"HTTP {row['status']}" if row["status"] is not None else "no answer"
    text = f"attempt {row['n']}: {answer} after {row['duration_ms']:.0f} ms{_error(row)}{_next(row['retry_at'])}"
    return Moment(row["at"], "delivery.attempted", ids.prefixed(ids.DELIVERY, row["delivery"]), text)


def _delivery_wait(row: Row, before: int) -> Wait:
    id, endpoint = ids.prefixed(ids.DELIVERY, row["id"]), ids.prefixed(ids.ENDPOINT, row["endpoint"])
    due = row["next_attempt_at"]
    if row["created_at"] is None:
        text = "its attempts are in the read models, and its own request is not yet"
        return Wait(id, "read_models", None, due, text)
    if row["status"] == "queued":
        least = "at least " if before == TRACE_QUEUED_LOOKED_AT_MAX else ""
        behind = f"behind {least}{_count(before, 'older one')}" if before else "the first"
        if row["rate"] is not None:
            text = f"waiting for the endpoint's rate: {endpoint} takes {row['rate']:g} a second, {behind}"
            return Wait(id, "endpoint_rate", row["created_at"], None, text)
        text = f"in the lane of {endpoint}, {behind}: the dispatcher has told of no attempt yet"
        return Wait(id, "dispatcher", row["created_at"], None, text)
    if row["is_ahead"]:
        text = f"waiting for timer until {_iso(due)}: attempt {row['attempts']} did not succeed{_error(row)}"
        return Wait(id, "endpoint_paused" if row["error_code"] == "endpoint_paused" else "timer", None, due, text)
    text = f"attempt {row['attempts'] + 1} is due: in the lane of {endpoint}, at work, or its result is on its way"
    return Wait(id, "dispatcher", due, None, text)


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def _place(row: Row) -> str:
    return f"at offset {row['offset']} of `events` partition {row['partition']}"


def _error(row: Row) -> str:
    return "" if row["error_code"] is None else f": {row['error_code']}: {row['error_message'] or ''}".rstrip(" :")


def _next(retry_at: datetime | None) -> str:
    return "" if retry_at is None else f"; the next attempt is due {_iso(retry_at)}"


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _total(rows: Sequence[Row]) -> int:
    """How many there are, of which these are the first."""
    return int(rows[0]["total"]) if rows else 0

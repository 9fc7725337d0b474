"""Runs: started by hand, looked at with their steps and attempts, cancelled.

A start and a cancellation are records on `run-commands`; the orchestrator decides what becomes of them. Not here: runs
that events start (the matcher).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson

from millrace_api.application.notation import stored, stored_run, written, written_plan
from millrace_api.application.problems import Conflict, Invalid, NotFound, Unavailable, at
from millrace_api.application.views import ErrorView, Json, error_of, raw
from millrace_core import ids, record
from millrace_core.errors import Reject, Retry
from millrace_core.event import check_depth
from millrace_core.messages import CancelRun, Raw, StartRun, encode, encode_with_payload
from millrace_core.record import Output
from millrace_store import payloads, queries
from millrace_store.aggregates import PLAN_PREFIX, Row
from millrace_store.pool import Connection

_SQL = queries.load("api/runs")
TOPIC = "run-commands"
STATUSES = (
    "queued",
    "running",
    "completed",
    "failed",
    "cancelled",
    "timed_out",
    "absorbed",
    "stale",
    "dead_lettered",
)
LIVE = frozenset({"queued", "running"})

Below = tuple[datetime, UUID]


class Place(Protocol):
    """Where an acked record stands."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


class Log(Protocol):
    """The plain producer."""

    async def write(self, outputs: Sequence[Output]) -> Sequence[Place]:
        """Returns when all are acked. Raises Retry when that is not known, Reject for what can never be written."""
        ...


@dataclass(frozen=True, slots=True)
class WaitingView:
    """What the flow of its subscription holds a run back for; `until` where it goes on by itself."""

    reason: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class RunSummary:
    id: str
    status: str
    plan_id: str | None
    plan_kind: str | None
    plan_version: int | None
    plan_name: str | None
    subscription: str | None
    event: str | None
    identifier: str | None
    requested_by: str | None
    error: ErrorView | None
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    flow_key: str | None
    waiting: WaitingView | None
    absorbed_into: str | None


@dataclass(frozen=True, slots=True)
class AttemptView:
    n: int
    status: str
    started_at: datetime | None
    ended_at: datetime | None
    duration_ms: float | None
    error: ErrorView | None
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class StepView:
    id: str
    type: str | None
    status: str
    started_at: datetime | None
    ended_at: datetime | None
    retry_at: datetime | None
    error: ErrorView | None
    output: Json
    attempts: list[AttemptView]


@dataclass(frozen=True, slots=True)
class RunView(RunSummary):
    input: Json
    output: Json
    steps: list[StepView]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs a list shows; None = any."""

    status: str | None = None
    plan: str | None = None
    event: str | None = None
    subscription: str | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A run that was asked for. It is `queued` until the orchestrator took it."""

    id: str
    status: str
    place: Place


async def start(
    log: Log, account: str, plan: bytes, *, input: bytes, requested_by: str, id: str | None = None
) -> Started:
    """Ask for a run of this plan. `input` is JSON whose bytes the run keeps. Asked for again under the same `id`, it is
    begun once."""
    run = id or ids.new_id(ids.RUN)
    data = _checked_input(input)
    command = StartRun(run=run, account=account, plan=Raw(plan), requested_by=requested_by, input=data)
    value, payload = encode_with_payload(command, data)
    return Started(run, "queued", await _command(log, account, run, value, (record.PAYLOAD, payload)))


async def start_compiled(
    log: Log,
    account: str,
    plan: bytes,
    *,
    run: str,
    input: bytes,
    requested_by: str,
    position: int,
    surface: bytes,
    beside: Sequence[Output] = (),
) -> Place:
    """Ask for the run of this id, once however often it is asked for, by those who have seen `control` up to there.
    `beside` is written with it."""
    command = StartRun(run=run, account=account, plan=Raw(plan), requested_by=requested_by, input=Raw(input))
    value, payload = encode_with_payload(command, Raw(input))
    more = (record.PAYLOAD, payload), (record.CONTROL, str(position).encode())
    return await _command(log, account, run, value, *more, surface=surface, beside=beside)


@dataclass(frozen=True, slots=True)
class End:
    """How a run stands, without its steps."""

    status: str
    output: Json
    error: ErrorView | None

    @property
    def is_over(self) -> bool:
        return self.status not in LIVE


async def end(tx: Connection, account: str, id: str) -> End | None:
    """How it stands; None = it is not in the read models yet."""
    row = await tx.fetchrow(_SQL["get_run"], account, stored_run(id))
    if row is None:
        return None
    (whole,) = await payloads.restored(tx, account, [row], "output")
    return End(row["status"], raw(whole["output"]), error_of(row))


async def cancel(log: Log, account: str, run: RunView, *, requested_by: str) -> Started:
    """Ask for the run's end. Raises Conflict when it is over."""
    if run.status not in LIVE:
        raise Conflict(f"This run is over ({run.status}): there is nothing to cancel.")
    value = encode(CancelRun(run=run.id, account=account, requested_by=requested_by))
    return Started(run.id, run.status, await _command(log, account, run.id, value))


async def get(tx: Connection, account: str, id: str) -> RunView:
    uuid = stored_run(id)
    row = await tx.fetchrow(_SQL["get_run"], account, uuid)
    if row is None:
        raise NotFound("run", id)
    (whole,) = await payloads.restored(tx, account, [row], "input", "bundle", "output")
    attempts: dict[str, list[AttemptView]] = {}
    for attempt in await tx.fetch(_SQL["attempts_of_run"], account, uuid):
        attempts.setdefault(attempt["node"], []).append(_attempt(attempt))
    steps = await payloads.restored(
        tx, account, await tx.fetch(_SQL["steps_of_run"], account, uuid), "output", owner="run"
    )
    return RunView(
        **_summary(whole),
        input=raw(whole["bundle"] or whole["input"]),
        output=raw(whole["output"]),
        steps=[_step(step, attempts) for step in steps],
    )


async def listed(tx: Connection, account: str, *, below: Below, count: int, filter: Filter) -> list[RunSummary]:
    """Newest first."""
    if filter.status is not None and filter.status not in STATUSES:
        raise Invalid(f"one of {', '.join(STATUSES)}", where="status")
    if filter.plan is not None and filter.event is None and filter.subscription is None:
        statuses = STATUSES if filter.status is None else (filter.status,)
        return await listed_of_statuses(tx, account, statuses, below=below, count=count, plan=filter.plan)
    rows = await tx.fetch(
        _SQL["list_runs"],
        account,
        *below,
        count,
        filter.status,
        None if filter.plan is None else _stored_plan(filter.plan),
        None if filter.event is None else stored(filter.event, "event", ids.EVENT),
        None if filter.subscription is None else stored(filter.subscription, "subscription", ids.SUBSCRIPTION),
    )
    return [RunSummary(**_summary(row)) for row in rows]


async def listed_of_statuses(
    tx: Connection, account: str, statuses: Sequence[str], *, below: Below, count: int, plan: str | None
) -> list[RunSummary]:
    """Newest first, of any of these statuses; of one plan, or of any."""
    stored_plan = None if plan is None else _stored_plan(plan)
    rows = await tx.fetch(_SQL["list_runs_of_statuses"], account, *below, count, list(statuses), stored_plan)
    return [RunSummary(**_summary(row)) for row in rows]


def uuid_of(run: RunSummary) -> UUID:
    """Where it stands in a list, with its time."""
    return ids.uuid_of(run.id)


def _stored_plan(id: str) -> UUID:
    return stored(id, "job, chain or workflow", *PLAN_PREFIX.values())


async def _command(
    log: Log,
    account: str,
    run: str,
    value: bytes,
    *more: tuple[str, bytes],
    surface: bytes = b"native",
    beside: Sequence[Output] = (),
) -> Place:
    headers = ((record.ACCOUNT, account.encode()), (record.ID, run.encode()), (record.SURFACE, surface), *more)
    try:
        *_, place = await log.write([*beside, Output(TOPIC, run.encode(), value, headers)])
    except Retry as error:
        raise Unavailable("The log cannot be reached right now: the command may or may not have been taken.") from error
    except Reject as error:
        raise Invalid(str(error), where="input") from None
    return place


def _checked_input(input: bytes) -> Raw:
    try:
        loaded = orjson.loads(input)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"not valid JSON: {error}", where="input") from None
    if not isinstance(loaded, dict):
        raise Invalid("must be an object, as an event's properties are", where="input")
    with at("input"):
        check_depth(loaded)
    return Raw(input.strip())


def _summary(row: Row) -> Mapping[str, Any]:
    return {
        "id": ids.prefixed(ids.RUN, row["id"]),
        "status": row["status"],
        "plan_id": written_plan(row["plan"], row["plan_kind"]),
        "plan_kind": row["plan_kind"],
        "plan_version": row["plan_version"],
        "plan_name": row["plan_name"],
        "subscription": written(ids.SUBSCRIPTION, row["subscription"]),
        "event": written(ids.EVENT, row["event"]),
        "identifier": row["identifier"],
        "requested_by": row["requested_by"],
        "error": error_of(row),
        "created_at": row["created_at"],
        "started_at": row["started_at"],
        "ended_at": row["ended_at"],
        "flow_key": row["flow_key"],
        "waiting": _waiting(row),
        "absorbed_into": written(ids.RUN, row["absorbed_into"]),
    }


def _waiting(row: Row) -> WaitingView | None:
    if row["status"] != "queued" or row["waiting_reason"] is None:
        return None
    return WaitingView(row["waiting_reason"], row["waiting_until"])


def _step(row: Row, attempts: Mapping[str, list[AttemptView]]) -> StepView:
    return StepView(
        id=row["node"],
        type=row["type"],
        status=row["status"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        retry_at=row["retry_at"],
        error=error_of(row),
        output=raw(row["output"]),
        attempts=attempts.get(row["node"], []),
    )


def _attempt(row: Row) -> AttemptView:
    return AttemptView(
        n=row["attempt"],
        status=row["status"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        duration_ms=row["duration_ms"],
        error=error_of(row),
        retry_at=row["retry_at"],
    )

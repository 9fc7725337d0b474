"""Backtests: what a new or changed subscription would have started by the events that were really received.

They are read back as a replay reads them, in the order in which they were received, and nothing is sent. One call looks
at so many of them, for so long, and says where it ended, to go on from there. An account has one under way at a time,
in one process. What an event comes to is the trial's to say (`trials`). Not here: HTTP.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from millrace_api.application import merging, plans, replays, subscriptions, workflows
from millrace_api.application.database import Database
from millrace_api.application.problems import Conflict, Invalid, NotFound
from millrace_api.application.replays import FIRST, Place
from millrace_api.application.subscriptions import Target, Wanted
from millrace_api.application.trials import Fit, Matched, Side, Tally, Trial
from millrace_core import identifiers, ids, limits
from millrace_core.clock import Clock, utc_now
from millrace_core.messages import Raw, SubscriptionControl
from millrace_core.plans import parse_plan
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/backtests")
_TURN_S = 0.005
"""After so long the other requests of this process have their turn."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A `new` subscription, or `changes` of one that is there; over the last `days`, or from `since` to `until`."""

    new: Wanted | None = None
    subscription: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    days: int | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """Behind this place, and before `until`."""

    after: Place
    until: datetime


@dataclass(frozen=True, slots=True)
class RunTime:
    """By the latest `runs` of the plan that are over: what one takes, and `total_s` what all that would have been
    started take, one after another."""

    runs: int
    mean_s: float
    p95_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What one version comes to. It matches events; those that its webhook gets `anyway`, by another subscription, cost
    nothing more, and all other figures leave them out. `steps` are at most so many, retries not counted; `bytes` are
    those of the properties that runs get as input and deliveries carry."""

    matched: int
    anyway: int
    runs: int
    deliveries: int
    steps: int
    bytes: int
    peak_per_minute: int
    peak_at: datetime | None
    run_time: RunTime | None


@dataclass(frozen=True, slots=True)
class Report:
    """What this call found in the events received from `since` to `reached`. Not `complete`: there are more up to
    `until`. `before` is the subscription as it is now, None when it is new. Events that fit and do not count are in
    `not_counted` by their outcome; of those that count, `undecided` have none yet, and `unreadable` would be dead
    letters now."""

    subscription: str | None
    since: datetime
    until: datetime
    reached: datetime
    complete: bool
    looked_at: int
    now: Cost
    before: Cost | None
    now_only: Matched
    before_only: Matched
    both: Matched
    not_counted: Mapping[str, int]
    undecided: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class _Version:
    """A version of the subscription, and what its target is: a plan with so many steps, or a webhook."""

    wanted: Wanted
    side: Side
    steps: int | None


class Backtests:
    """Gives reports, one at a time for each account."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._under_way: set[str] = set()

    async def report(self, account: str, asked: Asked, *, on: Span | None = None) -> tuple[Report, Span | None]:
        """What was asked for, and where to go on (None = all was looked at). `on` is where the call before ended.

        Raises Invalid, and Conflict when the webhook is disabled or another call is under way."""
        if account in self._under_way:
            raise Conflict("A backtest of this account is under way: ask again when it has answered.")
        self._under_way.add(account)
        try:
            return await self._report(account, asked, on or self._span(asked))
        finally:
            self._under_way.remove(account)

    def _span(self, asked: Asked) -> Span:
        now = utc_now(self._clock)
        until = now if asked.until is None else asked.until
        if until > now:
            raise Invalid("lies ahead: a backtest is of what was received already", where="until")
        if asked.days is not None and asked.since is not None:
            raise Invalid("says the same as `since`: give one of them", where="days")
        since = asked.since or until - timedelta(days=asked.days or limits.BACKTEST_DAYS_DEFAULT)
        if since >= until:
            raise Invalid("must be before `until`", where="since")
        return Span((since, FIRST), until)

    async def _report(self, account: str, asked: Asked, span: Span) -> tuple[Report, Span | None]:
        async with self._database.reading() as tx:
            before, now = await _versions(tx, account, asked)
        trial = Trial(now.side, before=None if before is None else before.side)
        identifier = _the_one_identifier([version.wanted.pattern for version in (before, now) if version is not None])
        looked_at, rest = await self._walk(trial, account, identifier, span)
        async with self._database.reading() as tx:
            report = Report(
                subscription=asked.subscription,
                since=span.after[0],
                until=span.until,
                reached=span.until if rest is None else rest.after[0],
                complete=rest is None,
                looked_at=looked_at,
                now=await _cost(tx, account, now, trial.now),
                before=None if before is None else await _cost(tx, account, before, trial.before),
                now_only=trial.now_only,
                before_only=trial.before_only,
                both=trial.both,
                not_counted=trial.not_counted,
                undecided=trial.undecided,
                unreadable=trial.unreadable,
            )
        return report, rest

    async def _walk(self, trial: Trial, account: str, identifier: str | None, span: Span) -> tuple[int, Span | None]:
        """Put the events of the span on trial, page by page: how many there was time and room for, and the rest."""
        deadline = self._clock.monotonic() + limits.BACKTEST_S_MAX
        at, looked_at = span.after, 0
        while looked_at < limits.BACKTEST_EVENTS_MAX and self._clock.monotonic() < deadline:
            async with self._database.asking() as tx:
                rows = await replays.page(tx, account, identifier, after=at, until=span.until)
            if not rows:
                return looked_at, None
            passed = await self._look(trial, account, rows, deadline)
            looked_at += passed
            at = rows[passed - 1]["received_at"], rows[passed - 1]["id"]
        return looked_at, Span(at, span.until)

    async def _look(self, trial: Trial, account: str, rows: Sequence[Row], deadline: float) -> int:
        """Put these events on trial, and answer how many of them there was time for: one at least."""
        fits: dict[UUID, Fit] = {}
        passed, turn_over = 0, self._clock.monotonic() + _TURN_S
        for row in rows:
            fit = trial.fit(replays.event_of(row, account))
            if fit is not None:
                fits[row["id"]] = fit
            passed += 1
            now = self._clock.monotonic()
            if now >= deadline:
                break
            if now >= turn_over:
                await asyncio.sleep(0)
                turn_over = self._clock.monotonic() + _TURN_S
        outcomes = await self._outcomes(account, list(fits))
        for id, fit in fits.items():
            trial.count(fit, outcomes.get(id))
        return passed

    async def _outcomes(self, account: str, events: Sequence[UUID]) -> Mapping[UUID, str]:
        if not events:
            return {}
        async with self._database.asking() as tx:
            rows = await tx.fetch(_SQL["own_outcomes"], account, events)
        return {row["id"]: row["outcome"] for row in rows}


# ── the versions ────────────────────────────────────────────────────────────────────────────────────────────────────
async def _versions(tx: Connection, account: str, asked: Asked) -> tuple[_Version | None, _Version]:
    """The subscription as it is now, if it is there, and as it would be. Raises Invalid, Conflict."""
    if asked.new is not None:
        id = ids.new_id(ids.SUBSCRIPTION)
        return None, await _would_be(tx, account, id, asked.new)
    id = asked.subscription or ""
    try:
        view = await subscriptions.get(tx, account, id)
    except NotFound:
        raise Invalid(f"there is no subscription {id[:64]!r} in this account", where="subscription") from None
    wanted = merging.merged(Wanted, view, {})
    before = await _version(tx, account, id, wanted, is_open=await _is_open(tx, account, wanted.target))
    with _below("changes"):
        return before, await _would_be(tx, account, id, merging.merged(Wanted, view, asked.changes))


async def _would_be(tx: Connection, account: str, id: str, wanted: Wanted) -> _Version:
    """A version that shall be tried: as right as if it were saved, and one that its target can hear."""
    subscriptions.check_terms(wanted)
    if not await _is_open(tx, account, wanted.target):
        raise Conflict(f"Webhook {wanted.target.id} is disabled and would get nothing: enable it first.")
    return await _version(tx, account, id, wanted, is_open=True)


async def _version(tx: Connection, account: str, id: str, wanted: Wanted, *, is_open: bool) -> _Version:
    """What it hears, among the others that lead to its webhook."""
    target, company = wanted.target, {id: _control(account, wanted)}
    if target.type != "webhook":
        return _Version(wanted, Side(id, company), await _steps(tx, account, target))
    count = limits.BACKTEST_OTHERS_MAX + 2  # it is one of them, or not
    for other in await subscriptions.listed(tx, account, below=None, count=count, target=target.id):
        company.setdefault(other.id, _control(account, merging.merged(Wanted, other, {})))
    if len(company) > limits.BACKTEST_OTHERS_MAX + 1:
        raise Conflict(f"Over {limits.BACKTEST_OTHERS_MAX} subscriptions lead to {target.id}: that is too many to try.")
    return _Version(wanted, Side(id, company if is_open else {}), None)


def _control(account: str, wanted: Wanted) -> SubscriptionControl:
    return SubscriptionControl(
        account=account,
        pattern=wanted.pattern,
        target_kind="endpoint" if wanted.target.type == "webhook" else "plan",
        target_id=wanted.target.id,
        created_at=0,
        priority=subscriptions.priority_of(wanted),
        enabled=wanted.enabled,
        where=wanted.where,
        filter=Raw(b"null" if wanted.filter is None else orjson.dumps(wanted.filter)),
    )


async def _is_open(tx: Connection, account: str, target: Target) -> bool:
    """Whether the target takes anything. Raises Invalid when it is not there."""
    if target.type != "webhook":
        return True
    enabled = await tx.fetchval(_SQL["is_open"], account, subscriptions.target_uuid(target))
    if enabled is None:
        raise subscriptions.no_target(target)
    return bool(enabled)


async def _steps(tx: Connection, account: str, target: Target) -> int:
    assert target.type != "webhook"
    try:
        if target.type == "workflow":
            return await workflows.nodes_in_force(tx, account, target.id)
        return len(parse_plan(await plans.compiled(tx, account, target.type, target.id)).nodes)
    except NotFound:
        raise subscriptions.no_target(target) from None


def _the_one_identifier(patterns: Sequence[str]) -> str | None:
    """The identifier that all of them name in full; None = events of every identifier must be looked at."""
    parsed = [identifiers.parse_pattern(pattern) for pattern in patterns]
    named = {str(pattern) if pattern.is_exact else None for pattern in parsed}
    return named.pop() if len(named) == 1 else None


@contextmanager
def _below(member: str) -> Iterator[None]:
    """What is refused inside is a member of this one."""
    try:
        yield
    except Invalid as error:
        raise Invalid(str(error), where=f"{member}.{error.where}") from None


# ── what it comes to ────────────────────────────────────────────────────────────────────────────────────────────────
async def _cost(tx: Connection, account: str, version: _Version, tally: Tally) -> Cost:
    runs = 0 if version.steps is None else tally.started
    peak, peak_at = tally.peak
    return Cost(
        matched=tally.matched,
        anyway=tally.anyway,
        runs=runs,
        deliveries=tally.started - runs,
        steps=runs * (version.steps or 0),
        bytes=tally.bytes,
        peak_per_minute=peak,
        peak_at=peak_at,
        run_time=None if version.steps is None else await _run_time(tx, account, version.wanted.target, runs),
    )


async def _run_time(tx: Connection, account: str, target: Target, runs: int) -> RunTime | None:
    row = await tx.fetchrow(
        _SQL["run_times"], account, subscriptions.target_uuid(target), limits.BACKTEST_RUNS_MEASURED_MAX
    )
    if row is None or not row["runs"]:
        return None
    return RunTime(row["runs"], row["mean_s"], row["p95_s"], runs * row["mean_s"])

"""Executions: runs as the automation document shows them, with fewer statuses and a log.

| shown | the run is |
|---|---|
| pending | queued |
| running | running, or waiting for a retry |
| completed | completed, or part of another run that its flow made of several |
| failed | failed, cancelled, timed out, stale or a dead letter: `error.code` says which |

Every run is one, whatever it is a run of: `workflow_id` is its workflow, job or chain. Runs are started and kept by
`runs`; nothing is decided here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from millrace_api.application import runs
from millrace_api.application.problems import Invalid
from millrace_api.application.runs import Below, RunSummary, RunView, StepView
from millrace_api.application.views import ErrorView, Json
from millrace_store.pool import Connection

Status = Literal["pending", "running", "completed", "failed"]
STATUSES: Final[tuple[Status, ...]] = ("pending", "running", "completed", "failed")
_SHOWN: Mapping[str, Status] = {
    "queued": "pending",
    "running": "running",
    "completed": "completed",
    "absorbed": "completed",
    "failed": "failed",
    "cancelled": "failed",
    "timed_out": "failed",
    "stale": "failed",
    "dead_lettered": "failed",
}
LAST: Final = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One thing that happened; `node` is the step it happened to."""

    time: datetime
    level: Literal["info", "warning", "error"]
    message: str
    node: str | None


@dataclass(frozen=True, slots=True)
class ExecutionSummary:
    """`test` = of a workflow's draft. `started_at` is when it was asked for until it has begun."""

    id: str
    workflow_id: str | None
    workflow_name: str | None
    version: int | None
    test: bool
    status: Status
    started_at: datetime | None
    completed_at: datetime | None
    error: ErrorView | None


@dataclass(frozen=True, slots=True)
class ExecutionView(ExecutionSummary):
    input: Json
    output: Json
    logs: list[LogLine]


async def get(tx: Connection, account: str, id: str) -> ExecutionView:
    run = await runs.get(tx, account, id)
    summary = _summary(run)
    return ExecutionView(
        **{name: getattr(summary, name) for name in ExecutionSummary.__dataclass_fields__},
        input=run.input,
        output=run.output,
        logs=sorted(_logs(run), key=lambda line: line.time),
    )


async def listed(
    tx: Connection,
    account: str,
    *,
    below: Below,
    count: int,
    workflow: str | None = None,
    status: Status | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[tuple[Below, ExecutionSummary]]:
    """Newest first, with where each stands in the list. `since` and `until` are of the moment it was asked for."""
    if since is not None and until is not None and since > until:
        raise Invalid("is after `to`", where="from")
    if until is not None:
        below = min(below, (until, LAST))
    if status is None:
        found = await runs.listed(tx, account, below=below, count=count, filter=runs.Filter(plan=workflow))
    else:
        wanted = [of for of, shown in _SHOWN.items() if shown == status]
        found = await runs.listed_of_statuses(tx, account, wanted, below=below, count=count, plan=workflow)
    return [
        ((run.created_at, runs.uuid_of(run)), _summary(run))
        for run in found
        if run.created_at is not None and (since is None or run.created_at >= since)
    ]


def _summary(run: RunSummary) -> ExecutionSummary:
    is_draft = run.plan_version == 0
    status = _SHOWN[run.status]
    return ExecutionSummary(
        id=run.id,
        workflow_id=run.plan_id,
        workflow_name=run.plan_name,
        version=None if is_draft else run.plan_version,
        test=is_draft,
        status=status,
        started_at=run.started_at or run.created_at,
        completed_at=run.ended_at,
        error=_error(run) if status == "failed" else None,
    )


def _error(run: RunSummary) -> ErrorView:
    return run.error or ErrorView(run.status, f"The run is over: {run.status}.")


# ── the log ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _logs(run: RunView) -> Iterator[LogLine]:
    if run.started_at is not None:
        yield LogLine(run.started_at, "info", "started", None)
    for step in run.steps:
        yield from _step_logs(step)
    if run.ended_at is not None:
        failed = _SHOWN[run.status] == "failed"
        text = f"{run.status}: {run.error.message}" if failed and run.error is not None else run.status
        yield LogLine(run.ended_at, "error" if failed else "info", text, None)


def _step_logs(step: StepView) -> Iterator[LogLine]:
    if step.status == "skipped" and step.ended_at is not None:
        yield LogLine(step.ended_at, "info", "skipped: no edge to it was taken", step.id)
    for attempt in step.attempts:
        if attempt.started_at is not None:
            yield LogLine(attempt.started_at, "info", f"attempt {attempt.n} started", step.id)
        if attempt.ended_at is None:
            continue
        took = "" if attempt.duration_ms is None else f" after {attempt.duration_ms:.0f} ms"
        if attempt.error is None:
            yield LogLine(attempt.ended_at, "info", f"attempt {attempt.n} completed{took}", step.id)
            continue
        text = f"attempt {attempt.n} failed{took}: {attempt.error.code}: {attempt.error.message}"
        if attempt.retry_at is not None:
            yield LogLine(attempt.ended_at, "warning", f"{text}; it is tried again", step.id)
        else:
            yield LogLine(attempt.ended_at, "error", text, step.id)

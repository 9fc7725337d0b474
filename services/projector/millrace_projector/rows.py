"""The rows of one batch: what records say about each thing, merged in log order before anything is written.

The merging here and the statements of `sql/projection.sql` follow the same rules, so that it does not matter where one
batch ends and the next begins: what only a thing's own record knows is taken from the first that tells it; of two
states the stronger stands, of two equally strong ones the first. A row is *fresh* when the record that makes the thing
is in the batch: then it is expected to be new, and can be copied straight into its table.
"""

from datetime import datetime
from operator import itemgetter
from typing import Final

from millrace_core import limits, payloads
from millrace_projector import tables
from millrace_projector.tables import Row, Table

# `stale` is the weakest end: whatever is known otherwise stands over it; over `dead_lettered`, which may be sent again,
# a real end. What is not named here is a real end.
RUN_STRENGTH: Final = {"queued": 0, "stale": 1, "running": 2, "dead_lettered": 3}
DELIVERY_STRENGTH: Final = {"queued": 0, "stale": 1, "retrying": 2, "dead_lettered": 3}
ENDED: Final = 4
BUCKET_OFFSETS: Final = 4096


class RunRow:
    __slots__ = (
        "absorbed_into",
        "account",
        "bundle",
        "created_at",
        "ended_at",
        "error_code",
        "error_message",
        "event",
        "flow_key",
        "id",
        "identifier",
        "input",
        "is_fresh",
        "output",
        "plan",
        "plan_kind",
        "plan_name",
        "plan_version",
        "requested_by",
        "started_at",
        "status",
        "strength",
        "subscription",
        "waiting_reason",
        "waiting_until",
    )

    def __init__(self, id: str, account: str) -> None:
        self.id = id
        self.account = account
        self.is_fresh = False
        self.status, self.strength = "queued", 0
        self.plan: str | None = None
        self.plan_kind: str | None = None
        self.plan_version: int | None = None
        self.plan_name: str | None = None
        self.subscription: str | None = None
        self.event: str | None = None
        self.identifier: str | None = None
        self.requested_by: str | None = None
        self.input: bytes | None = None
        self.output: bytes | None = None
        self.error_code: str | None = None
        self.error_message: str | None = None
        self.created_at: datetime | None = None
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.flow_key: str | None = None
        self.waiting_reason: str | None = None
        self.waiting_until: datetime | None = None
        self.bundle: bytes | None = None
        self.absorbed_into: str | None = None

    def becomes(self, status: str) -> bool:
        """Take this status if it is stronger than the present one; the caller then sets what goes with it."""
        strength = RUN_STRENGTH.get(status, ENDED)
        if strength <= self.strength:
            return False
        self.status, self.strength = status, strength
        self.output = self.error_code = self.error_message = self.ended_at = self.absorbed_into = None
        return True

    def row(self) -> Row:
        return (
            self.id,
            self.account,
            self.status,
            self.plan,
            self.plan_kind,
            self.plan_version,
            self.plan_name,
            self.subscription,
            self.event,
            self.identifier,
            self.requested_by,
            self.input,
            self.output,
            self.error_code,
            self.error_message,
            self.created_at,
            self.started_at,
            self.ended_at,
            self.flow_key,
            self.waiting_reason,
            self.waiting_until,
            self.bundle,
            self.absorbed_into,
        )


class StepRow:
    __slots__ = (
        "account",
        "attempts",
        "ended_at",
        "error_code",
        "error_message",
        "is_fresh",
        "node",
        "output",
        "retry_at",
        "run",
        "started_at",
        "status",
        "type",
    )

    def __init__(self, run: str, node: str, account: str) -> None:
        self.run = run
        self.node = node
        self.account = account
        self.is_fresh = False
        self.type: str | None = None
        self.status, self.attempts = "running", 0
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.retry_at: datetime | None = None
        self.error_code: str | None = None
        self.error_message: str | None = None
        self.output: bytes | None = None

    def becomes(self, status: str, attempt: int) -> bool:
        """Take this state of this attempt if it comes after the present one and the step is not over."""
        if self.status in ("completed", "failed"):
            return False
        if (attempt, status != "running") <= (self.attempts, self.status != "running"):
            return False
        self.status, self.attempts = status, attempt
        self.retry_at = self.error_code = self.error_message = self.ended_at = self.output = None
        return True

    def row(self) -> Row:
        return (
            self.run,
            self.node,
            self.account,
            self.type,
            self.status,
            self.attempts,
            self.started_at,
            self.ended_at,
            self.retry_at,
            self.error_code,
            self.error_message,
            self.output,
        )


class StepAttemptRow:
    __slots__ = (
        "account",
        "attempt",
        "duration_ms",
        "ended_at",
        "error_code",
        "error_message",
        "is_fresh",
        "node",
        "retry_at",
        "run",
        "started_at",
        "status",
    )

    def __init__(self, run: str, node: str, attempt: int, account: str) -> None:
        self.run = run
        self.node = node
        self.attempt = attempt
        self.account = account
        self.is_fresh = False
        self.status = "running"
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.duration_ms: float | None = None
        self.error_code: str | None = None
        self.error_message: str | None = None
        self.retry_at: datetime | None = None

    def row(self) -> Row:
        return (
            self.run,
            self.node,
            self.attempt,
            self.account,
            self.status,
            self.started_at,
            self.ended_at,
            self.duration_ms,
            self.error_code,
            self.error_message,
            self.retry_at,
        )


class DeliveryRow:
    __slots__ = (
        "account",
        "attempts",
        "body",
        "created_at",
        "ended_at",
        "endpoint",
        "error_code",
        "error_message",
        "event",
        "id",
        "is_fresh",
        "last_status",
        "next_attempt_at",
        "status",
        "strength",
        "subscription",
        "type",
    )

    def __init__(self, id: str, account: str, endpoint: str, event: str) -> None:
        self.id = id
        self.account = account
        self.endpoint = endpoint
        self.event = event
        self.is_fresh = False
        self.status, self.strength = "queued", 0
        self.attempts = 0
        self.subscription: str | None = None
        self.type: str | None = None
        self.next_attempt_at: datetime | None = None
        self.last_status: int | None = None
        self.error_code: str | None = None
        self.error_message: str | None = None
        self.body: bytes | None = None
        self.created_at: datetime | None = None
        self.ended_at: datetime | None = None

    def becomes(self, status: str, attempts: int) -> bool:
        """Take this status after so many attempts if it is stronger than the present one, or a later retry."""
        strength = DELIVERY_STRENGTH.get(status, ENDED)
        is_later_retry = strength == self.strength == DELIVERY_STRENGTH["retrying"] and attempts > self.attempts
        if attempts > self.attempts:
            self.attempts = attempts
        if strength <= self.strength and not is_later_retry:
            return False
        self.status, self.strength = status, strength
        self.next_attempt_at = self.last_status = self.error_code = self.error_message = self.ended_at = None
        return True

    def row(self) -> Row:
        return (
            self.id,
            self.account,
            self.endpoint,
            self.event,
            self.subscription,
            self.type,
            self.status,
            self.attempts,
            self.next_attempt_at,
            self.last_status,
            self.error_code,
            self.error_message,
            self.body,
            self.created_at,
            self.ended_at,
        )


class Rows:
    """Everything one batch writes. Filled by `handlers.project`, in log order within each partition."""

    def __init__(self) -> None:
        self.events: dict[str, Row] = {}
        self.event_outcomes: dict[Row, Row] = {}
        self.event_matches: dict[Row, Row] = {}
        self.runs: dict[str, RunRow] = {}
        self.steps: dict[Row, StepRow] = {}
        self.step_attempts: dict[Row, StepAttemptRow] = {}
        self.deliveries: dict[str, DeliveryRow] = {}
        self.delivery_attempts: dict[Row, Row] = {}
        self.dead_letters: list[Row] = []
        self.account_book: dict[tuple[int, int], bytearray] = {}
        self.payloads: dict[Row, Row] = {}
        self.receipt_roots: dict[Row, Row] = {}
        self.receipt_leaves: dict[Row, Row] = {}
        self.receipt_days: dict[Row, Row] = {}
        self.receipt_seeds: dict[Row, Row] = {}
        self.entities: list[Row] = []
        self.audit: dict[Row, Row] = {}

    def held(self, owner: str, account: str, payload: bytes) -> bytes:
        """What a row holds of a payload of this event, run or delivery: itself, or a reference where it is large.

        Call it for every record that says one, in force or not: which payloads there are then follows from the log
        alone, wherever one batch ends and the next begins."""
        if not payloads.is_large(payload):
            return payload
        reference = payloads.reference_to(payload)
        key = owner, payloads.digest_in(reference)
        self.payloads.setdefault(key, (*key, account, payload))
        return reference

    def run(self, id: str, account: str) -> RunRow:
        row = self.runs.get(id)
        if row is None:
            row = self.runs[id] = RunRow(id, account)
        return row

    def step(self, run: str, node: str, account: str) -> StepRow:
        row = self.steps.get((run, node))
        if row is None:
            row = self.steps[run, node] = StepRow(run, node, account)
        return row

    def step_attempt(self, run: str, node: str, attempt: int, account: str) -> StepAttemptRow:
        row = self.step_attempts.get((run, node, attempt))
        if row is None:
            row = self.step_attempts[run, node, attempt] = StepAttemptRow(run, node, attempt, account)
        return row

    def delivery(self, id: str, account: str, endpoint: str, event: str) -> DeliveryRow:
        row = self.deliveries.get(id)
        if row is None:
            row = self.deliveries[id] = DeliveryRow(id, account, endpoint, event)
        return row

    def decided(self, partition: int, offset: int) -> None:
        """The record of `events` at this place has an outcome."""
        bucket, at = divmod(offset, BUCKET_OFFSETS)
        bits = self.account_book.get((partition, bucket))
        if bits is None:
            bits = self.account_book[partition, bucket] = bytearray(BUCKET_OFFSETS // 8)
        bits[at >> 3] |= 0x80 >> (at & 7)

    def written(self) -> list[tuple[Table, list[Row], list[Row]]]:
        """For each table that gets any: its fresh rows and those to be merged, both sorted by key."""
        found: list[tuple[Table, list[Row], list[Row]]] = []
        for table, kept in (
            (tables.EVENTS, self.events),
            (tables.EVENT_OUTCOMES, self.event_outcomes),
            (tables.EVENT_MATCHES, self.event_matches),
            (tables.DELIVERY_ATTEMPTS, self.delivery_attempts),
            (tables.RECEIPT_ROOTS, self.receipt_roots),
            (tables.RECEIPT_LEAVES, self.receipt_leaves),
            (tables.RECEIPT_DAYS, self.receipt_days),
            (tables.RECEIPT_SEEDS, self.receipt_seeds),
            (tables.AUDIT, self.audit),
        ):
            found.append((table, _sorted(table, list(kept.values())), []))
        found.append((tables.DEAD_LETTERS, _sorted(tables.DEAD_LETTERS, self.dead_letters), []))
        found.append((tables.PAYLOADS, [], _sorted(tables.PAYLOADS, list(self.payloads.values()))))
        for table, merged in (
            (tables.RUNS, self.runs),
            (tables.STEPS, self.steps),
            (tables.STEP_ATTEMPTS, self.step_attempts),
            (tables.DELIVERIES, self.deliveries),
        ):
            fresh = [row.row() for row in merged.values() if row.is_fresh]
            other = [row.row() for row in merged.values() if not row.is_fresh]
            found.append((table, _sorted(table, fresh), _sorted(table, other)))
        # One row for each event that tells of a thing: Postgres puts together what they say, some at a time, since one
        # statement has only so long.
        said, some = _sorted(tables.ENTITIES, self.entities), limits.ENTITIES_MERGED_AT_ONCE
        found += [(tables.ENTITIES, [], said[first : first + some]) for first in range(0, len(said), some)]
        # Last: projectors share these rows, and each waits for the other's commit.
        book = [(*place, bytes(bits)) for place, bits in self.account_book.items()]
        found.append((tables.ACCOUNT_BOOK, [], _sorted(tables.ACCOUNT_BOOK, book)))
        return [(table, fresh, merged) for table, fresh, merged in found if fresh or merged]


def _sorted(table: Table, rows: list[Row]) -> list[Row]:
    rows.sort(key=itemgetter(*range(table.key)))
    return rows

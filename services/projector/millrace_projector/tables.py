"""The shape of each row the projector makes: its columns in order, the ones that name it first.

The statements that write them (`millrace_store`, `sql/projection.sql`) take the same columns in the same order; a test
holds the two together on a real Postgres.
"""

from dataclasses import dataclass
from typing import Any

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """`key` = how many of the first columns name a row; rows are sorted by them before writing."""

    name: str
    columns: tuple[str, ...]
    key: int = 1


EVENTS = Table(
    "events",
    (
        "id",
        "account",
        "identifier",
        "received_at",
        "timestamp",
        "unique_key",
        "ordering_key",
        "replay",
        "hops",
        "extensions",
        "partition",
        "offset",
        "properties",
        "properties_json",
        "json_refused",
    ),
)
EVENT_OUTCOMES = Table(
    "event_outcomes",
    ("event", "partition", "offset", "account", "outcome", "decided_at", "duplicate_of", "reason"),
    key=3,
)
EVENT_MATCHES = Table("event_matches", ("event", "kind", "child", "account", "subscription", "endpoint"), key=3)
RUNS = Table(
    "runs",
    (
        "id",
        "account",
        "status",
        "plan",
        "plan_kind",
        "plan_version",
        "plan_name",
        "subscription",
        "event",
        "identifier",
        "requested_by",
        "input",
        "output",
        "error_code",
        "error_message",
        "created_at",
        "started_at",
        "ended_at",
        "flow_key",
        "waiting_reason",
        "waiting_until",
        "bundle",
        "absorbed_into",
    ),
)
STEPS = Table(
    "steps",
    (
        "run",
        "node",
        "account",
        "type",
        "status",
        "attempts",
        "started_at",
        "ended_at",
        "retry_at",
        "error_code",
        "error_message",
        "output",
    ),
    key=2,
)
STEP_ATTEMPTS = Table(
    "step_attempts",
    (
        "run",
        "node",
        "attempt",
        "account",
        "status",
        "started_at",
        "ended_at",
        "duration_ms",
        "error_code",
        "error_message",
        "retry_at",
    ),
    key=3,
)
DELIVERIES = Table(
    "deliveries",
    (
        "id",
        "account",
        "endpoint",
        "event",
        "subscription",
        "type",
        "status",
        "attempts",
        "next_attempt_at",
        "last_status",
        "error_code",
        "error_message",
        "body",
        "created_at",
        "ended_at",
    ),
)
DELIVERY_ATTEMPTS = Table(
    "delivery_attempts",
    (
        "delivery",
        "n",
        "account",
        "outcome",
        "at",
        "duration_ms",
        "url",
        "status",
        "error_code",
        "error_message",
        "response",
        "retry_at",
    ),
    key=2,
)
DEAD_LETTERS = Table(
    "dead_letters",
    (
        "topic",
        "partition",
        "offset",
        "account",
        "at",
        "reason",
        "source_topic",
        "source_partition",
        "source_offset",
        "key",
        "value",
        "headers",
    ),
    key=3,
)
PAYLOADS = Table("payloads", ("owner", "digest", "account", "bytes"), key=2)

ACCOUNT_BOOK = Table("account_book", ("partition", "bucket", "decided"), key=2)
RECEIPT_ROOTS = Table(
    "receipt_roots",
    ("account", "day", "leaves", "root", "previous", "chain", "other_chain", "at"),
    key=2,
)
RECEIPT_LEAVES = Table(
    "receipt_leaves",
    ("account", "day", "first", "root", "first_id", "last_id", "entries", "at"),
    key=3,
)
RECEIPT_DAYS = Table("receipt_days", ("day", "accounts", "facts", "ends", "at"))
RECEIPT_SEEDS = Table("receipt_seeds", ("offset", "seed", "at"))
ENTITIES = Table(
    "entities",
    (
        "account",
        "kind",
        "id",
        "at",
        "created_ms",
        "updated_ms",
        "erased",
        "members",
        "event",
        "partition",
        "offset",
    ),
    key=3,
)
AUDIT = Table(
    "audit",
    (
        "account",
        "id",
        "at",
        "kind",
        "actor",
        "role",
        "action",
        "version",
        "run",
        "confirmation",
        "prompt",
        "rendered",
        "response",
        "outcome",
        "error_code",
        "error_message",
        "duration_ms",
        "params",
        "result",
    ),
    key=2,
)

TABLES = (
    EVENTS,
    EVENT_OUTCOMES,
    EVENT_MATCHES,
    RUNS,
    STEPS,
    STEP_ATTEMPTS,
    DELIVERIES,
    DELIVERY_ATTEMPTS,
    DEAD_LETTERS,
    ACCOUNT_BOOK,
    PAYLOADS,
    RECEIPT_ROOTS,
    RECEIPT_LEAVES,
    RECEIPT_DAYS,
    RECEIPT_SEEDS,
    ENTITIES,
    AUDIT,
)

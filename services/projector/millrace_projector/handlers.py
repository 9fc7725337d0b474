"""What each record says about the read models: the last step of a message's life.

Pure: a record and the batch's rows so far in, rows out. Everything comes from the record (its members, its headers,
the broker's time), so reading the log again gives the same rows. Raising Reject leaves the batch's rows as they were:
every value is checked before the first is set.
Not here: transactions, positions (`processor`), and the SQL that merges with what is stored (`millrace_store`).
"""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from millrace_core import dead_letters, entities, ids
from millrace_core.errors import Reject
from millrace_core.messages import (
    Delivery,
    DeliveryAttempted,
    DeliveryEnded,
    DeliveryFact,
    ErrorInfo,
    Event,
    EventFact,
    RunBundled,
    RunCommand,
    RunEnded,
    RunFact,
    RunStarted,
    RunWaiting,
    StartRun,
    StepCompleted,
    StepFailed,
    StepSkipped,
    StepStarted,
    decode,
)
from millrace_core.payloads import is_large
from millrace_core.record import ACCOUNT, SOURCE, Received, header
from millrace_projector.audit_records import audited
from millrace_projector.control_records import control_changed
from millrace_projector.receipt_records import leaves_written, receipt_written
from millrace_projector.rows import Rows
from millrace_projector.tables import Row
from millrace_projector.values import (
    clean,
    clean_or_none,
    int4,
    int4_or_none,
    int8,
    json_copy,
    known_uuid_hex,
    moment,
    moment_or_none,
    short_topic,
    uuid_hex,
    uuid_hex_or_none,
)

NO_PLACE = (-1, -1)
_TOO_LARGE = "it is too large to be searched"


class _PlanHead(msgspec.Struct, frozen=True, gc=False):
    id: str = ""
    kind: str | None = None
    version: int | None = None
    name: str | None = None


def event_posted(record: Received, rows: Rows) -> None:
    """`events`: the first record of an id is the event; a repeat of its uniqueKey only has an outcome, and so
    has one that a replay wrote (of partitions, a rebuild may read any first)."""
    event = decode(record.value, Event)
    id = uuid_hex(event.id)
    if event.replay is not None:
        return
    account, properties = clean(event.account), bytes(event.properties)
    copy, refused = json_copy(properties) if not is_large(properties) else (None, _TOO_LARGE)
    extensions = None
    if event.extensions is not None:
        extensions = json.dumps({clean(name): clean(value) for name, value in event.extensions.items()})
    row = (
        id,
        account,
        clean(event.identifier),
        moment(event.received_at),
        clean_or_none(event.timestamp),
        clean_or_none(event.unique_key),
        clean_or_none(event.ordering_key),
        clean_or_none(event.replay),
        int4(event.hops),
        extensions,
        record.partition,
        record.offset,
        rows.held(id, account, properties),
        copy,
        refused,
    )
    rows.events.setdefault(id, row)
    if copy is not None and entities.about(event.identifier) is not None:
        rows.entities += _entities(record, event, id, copy)


def _entities(record: Received, event: Event, id: str, properties: str) -> list[Row]:
    """What the event says of customers, tickets and the like, each member with its place in the log."""
    place = entities.stamp(record.timestamp, record.partition, record.offset)
    at, account = moment(record.timestamp), clean(event.account)
    return [
        (
            account,
            told.kind,
            told.id,
            at,
            record.timestamp if told.created_ms is None else told.created_ms,
            record.timestamp,
            place if told.erases else None,
            json.dumps({name: [place, value] for name, value in told.members.items()}),
            id,
            record.partition,
            record.offset,
        )
        for told in entities.told_by(event.identifier, properties)
    ]


def event_decided(record: Received, rows: Rows) -> None:
    """`event-facts`: the outcome of one record on `events`, and the children it names."""
    fact = decode(record.value, EventFact)
    event, account = uuid_hex(fact.event), clean(fact.account)
    place = _source_place(record)
    outcome = (
        event,
        *place,
        account,
        fact.outcome,
        moment(fact.at),
        uuid_hex_or_none(fact.duplicate_of),
        clean_or_none(fact.reason),
    )
    children: list[Row] = [
        (event, "run", uuid_hex(run.id), account, known_uuid_hex(run.subscription), None) for run in fact.runs
    ]
    for child in fact.deliveries:
        subscription, endpoint = known_uuid_hex(child.subscription), known_uuid_hex(child.endpoint)
        children.append((event, "delivery", uuid_hex(child.id), account, subscription, endpoint))
    rows.event_outcomes.setdefault((event, *place), outcome)
    if place != NO_PLACE:
        rows.decided(*place)
    for row in children:
        rows.event_matches.setdefault(row[:3], row)


def run_asked(record: Received, rows: Rows) -> None:
    """`run-commands`: a run that shall begin is a row `queued`. Its other commands change no row."""
    command: RunCommand = decode(record.value, RunCommand)  # type: ignore[arg-type]
    if not isinstance(command, StartRun):
        return
    id, account, created_at = uuid_hex(command.run), clean(command.account), moment(record.timestamp)
    plan_id, kind, version, name = _plan(command.plan)
    subscription = uuid_hex_or_none(command.subscription)
    event = None if command.event is None else uuid_hex(command.event.id)
    row, held = rows.run(id, account), rows.held(id, account, bytes(command.input))
    if row.created_at is not None:
        return
    row.is_fresh = True
    row.created_at = created_at
    row.plan, row.plan_kind, row.plan_version, row.plan_name = plan_id, kind, version, name
    row.subscription, row.event = subscription, event
    row.identifier = None if command.event is None else clean(command.event.identifier)
    row.requested_by = clean_or_none(command.requested_by)
    row.input = held
    part = command.flow or command.account_flow
    if part is not None:
        row.flow_key = clean(part.key)


def run_told(record: Received, rows: Rows) -> None:
    """`run-facts`: runs, their steps and the attempts of those."""
    fact: RunFact = decode(record.value, RunFact)  # type: ignore[arg-type]
    _RUN_FACTS[type(fact)](fact, rows)


def _run_started(fact: RunStarted, rows: Rows) -> None:
    id, at, plan = uuid_hex(fact.run), moment(fact.at), _plan_uuid(fact.plan_id)
    version, subscription = int4(fact.plan_version), uuid_hex_or_none(fact.subscription)
    event = uuid_hex_or_none(fact.event)
    row = rows.run(id, clean(fact.account))
    row.started_at = row.started_at or at
    if row.plan_kind is None:
        row.plan, row.plan_kind, row.plan_version = plan, clean(fact.plan_kind), version
        row.subscription, row.event = subscription, event
    row.becomes("running")


def _run_waiting(fact: RunWaiting, rows: Rows) -> None:
    id, until = uuid_hex(fact.run), moment_or_none(fact.until)
    row = rows.run(id, clean(fact.account))
    row.waiting_reason, row.waiting_until = fact.reason, until


def _run_bundled(fact: RunBundled, rows: Rows) -> None:
    id, account = uuid_hex(fact.run), clean(fact.account)
    rows.run(id, account).bundle = rows.held(id, account, bytes(fact.input))


def _step_started(fact: StepStarted, rows: Rows) -> None:
    run, account, at, attempt = uuid_hex(fact.run), clean(fact.account), moment(fact.at), int4(fact.attempt)
    node = clean(fact.node)
    step = rows.step(run, node, account)
    step.type = step.type or clean(fact.type)
    step.started_at = step.started_at or at
    if attempt == 1:
        step.is_fresh = True
    step.becomes("running", attempt)
    row = rows.step_attempt(run, node, attempt, account)
    row.is_fresh = True
    row.started_at = row.started_at or at


def _step_completed(fact: StepCompleted, rows: Rows) -> None:
    run, account, at, attempt = uuid_hex(fact.run), clean(fact.account), moment(fact.at), int4(fact.attempt)
    node = clean(fact.node)
    step, held = rows.step(run, node, account), rows.held(run, account, bytes(fact.output))
    if step.becomes("completed", attempt):
        step.ended_at, step.output = at, held
    row = rows.step_attempt(run, node, attempt, account)
    if row.status == "running":
        row.status, row.ended_at, row.duration_ms = "completed", at, fact.duration_ms


def _step_failed(fact: StepFailed, rows: Rows) -> None:
    run, account, at, attempt = uuid_hex(fact.run), clean(fact.account), moment(fact.at), int4(fact.attempt)
    node, retry_at = clean(fact.node), moment_or_none(fact.retry_at)
    code, message = _error(fact.error)
    step = rows.step(run, node, account)
    if step.becomes("failed" if retry_at is None else "retrying", attempt):
        step.ended_at = at if retry_at is None else None
        step.retry_at, step.error_code, step.error_message = retry_at, code, message
    row = rows.step_attempt(run, node, attempt, account)
    if row.status == "running":
        row.status, row.ended_at, row.duration_ms = "failed", at, fact.duration_ms
        row.retry_at, row.error_code, row.error_message = retry_at, code, message


def _step_skipped(fact: StepSkipped, rows: Rows) -> None:
    step = rows.step(uuid_hex(fact.run), clean(fact.node), clean(fact.account))
    step.type, step.is_fresh = step.type or clean(fact.type), True
    if step.becomes("skipped", 0):
        step.ended_at = moment(fact.at)


def _run_ended(fact: RunEnded, rows: Rows) -> None:
    id, account, at = uuid_hex(fact.run), clean(fact.account), moment(fact.at)
    into = uuid_hex_or_none(fact.into)
    row, held = rows.run(id, account), rows.held(id, account, bytes(fact.output))
    if row.becomes(fact.outcome):
        row.ended_at, row.absorbed_into = at, into
        row.error_code, row.error_message = _error(fact.error)
        row.output = held


def delivery_asked(record: Received, rows: Rows) -> None:
    """`deliveries`: a message that shall be delivered is a row `queued`. Records that ask for its further attempts
    say the same again."""
    delivery = decode(record.value, Delivery)
    id, endpoint, event = uuid_hex(delivery.id), known_uuid_hex(delivery.endpoint), uuid_hex(delivery.event)
    # Never the record's own time: of several records for one delivery, in different topics, any may be read first.
    created_at = moment(delivery.created_at or ids.time_ms_of(delivery.id))
    subscription = None if delivery.subscription is None else known_uuid_hex(delivery.subscription)
    account = clean(delivery.account)
    row, held = rows.delivery(id, account, endpoint, event), rows.held(id, account, bytes(delivery.body))
    if row.created_at is not None:
        return
    row.is_fresh = delivery.attempt <= 1 and not delivery.waits
    row.created_at = created_at
    row.subscription = subscription
    row.type = clean(delivery.type)
    row.body = held


def delivery_told(record: Received, rows: Rows) -> None:
    """`delivery-facts`: attempts, and how a delivery ended."""
    fact: DeliveryFact = decode(record.value, DeliveryFact)  # type: ignore[arg-type]
    id, at = uuid_hex(fact.delivery), moment(fact.at)
    endpoint, event, account = known_uuid_hex(fact.endpoint), uuid_hex(fact.event), clean(fact.account)
    if isinstance(fact, DeliveryEnded):
        row = rows.delivery(id, account, endpoint, event)
        if row.becomes(fact.outcome, 0):
            row.ended_at, row.next_attempt_at = at, None
            row.error_code, row.error_message = fact.outcome, clean(fact.reason)
        return
    attempt, status, retry_at = int4(fact.attempt), int4_or_none(fact.status), moment_or_none(fact.retry_at)
    code, message = _error(fact.error)
    row = rows.delivery(id, account, endpoint, event)
    if row.becomes(fact.outcome, attempt):
        row.ended_at = None if fact.outcome == "retrying" else at
        row.next_attempt_at, row.last_status = retry_at, status
        row.error_code, row.error_message = code, message
    rows.delivery_attempts.setdefault((id, attempt), _attempt_row(fact, id, account, code, message))


def _attempt_row(
    fact: DeliveryAttempted, id: str, account: str, code: str | None, message: str | None
) -> tuple[object, ...]:
    return (
        id,
        fact.attempt,
        account,
        fact.outcome,
        moment(fact.at),
        fact.duration_ms,
        clean(fact.url),
        fact.status,
        code,
        message,
        clean_or_none(fact.response),
        moment_or_none(fact.retry_at),
    )


def letter_died(record: Received, rows: Rows) -> None:
    """`dead-letters`: a refused record as it was. Any bytes will do: this one never raises Reject."""
    own = (dead_letters.TOPIC, dead_letters.PARTITION, dead_letters.OFFSET, dead_letters.REASON)
    topic, partition, offset, reason = (_text(header(record, name)) for name in own)
    others = [[clean(name), _text(value)] for name, value in record.headers if name not in own]
    source = None if topic is None else short_topic(topic)
    source_partition, source_offset = _number(partition, 2**31 - 1), _number(offset, 2**63 - 1)
    rows.dead_letters.append(
        (
            short_topic(record.topic),
            record.partition,
            record.offset,
            _text(header(record, ACCOUNT)) or "",
            moment(record.timestamp),
            reason or "no reason was given",
            source,
            source_partition,
            source_offset,
            record.key,
            record.value,
            json.dumps(others),
        )
    )
    if source == "events" and source_partition is not None and source_offset is not None:
        rows.decided(source_partition, source_offset)


def _source_place(record: Received) -> tuple[int, int]:
    """Partition and offset of the record that a fact is about."""
    parts = (header(record, SOURCE) or b"").split(b":")
    if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
        return NO_PLACE
    return int4(int(parts[1])), int8(int(parts[2]))


def _text(value: bytes | None) -> str | None:
    return None if value is None else clean(value.decode("utf-8", "replace"))


def _number(text: str | None, most: int) -> int | None:
    return (
        int(text)
        if text is not None and text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most
        else None
    )


def _error(error: ErrorInfo | None) -> tuple[str | None, str | None]:
    return (None, None) if error is None else (clean(error.code), clean(error.message))


def _plan(raw: msgspec.Raw) -> tuple[str | None, str | None, int | None, str | None]:
    """Id, kind, version and name of the plan a run pins. The decider judges the plan; here a part that cannot be
    shown is left out."""
    try:
        head = _decode_plan_head(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, None, None, None
    version = head.version if head.version is not None and abs(head.version) < 2**31 else None
    return _plan_uuid(head.id), clean_or_none(head.kind), version, clean_or_none(head.name)


_decode_plan_head = msgspec.json.Decoder(_PlanHead).decode


def _plan_uuid(id: str) -> str | None:
    try:
        return uuid_hex(id)
    except Reject:
        return None


_RUN_FACTS: Mapping[type, Callable[..., None]] = MappingProxyType(
    {
        RunStarted: _run_started,
        RunWaiting: _run_waiting,
        RunBundled: _run_bundled,
        StepStarted: _step_started,
        StepCompleted: _step_completed,
        StepFailed: _step_failed,
        StepSkipped: _step_skipped,
        RunEnded: _run_ended,
    }
)

HANDLERS: Mapping[str, Callable[[Received, Rows], None]] = MappingProxyType(
    {
        "events": event_posted,
        "event-facts": event_decided,
        "run-commands": run_asked,
        "run-commands-tx": run_asked,
        "run-facts": run_told,
        "deliveries": delivery_asked,
        "deliveries-tx": delivery_asked,
        "deliveries-overflow": delivery_asked,
        "delivery-facts": delivery_told,
        "dead-letters": letter_died,
        "dead-letters-tx": letter_died,
        "control": control_changed,
        "receipt-roots": receipt_written,
        "receipt-leaves": leaves_written,
        "audit": audited,
    }
)
"""Every topic the projector reads, by catalogue name."""

TOPICS = tuple(HANDLERS)

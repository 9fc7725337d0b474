"""From records to rows, one record at a time: what each says, and which of two that disagree stands."""

from collections.abc import Iterable

import msgspec
import pytest

from millrace_core import audit, ids
from millrace_core.errors import Reject
from millrace_core.messages import (
    AuditEntry,
    DeliveryEnded,
    Event,
    FlowPart,
    Message,
    Raw,
    ReceiptLeaves,
    ReceiptRoot,
    RunBundled,
    RunEnded,
    RunWaiting,
    StartRun,
    StepSkipped,
    decode,
    encode,
)
from millrace_core.record import Output, Received, Written
from millrace_kafka.topics import short_name
from millrace_projector import tables
from millrace_projector.handlers import HANDLERS
from millrace_projector.rows import Rows
from millrace_projector.tables import Table
from tests.support import story
from tests.support.story import ACCOUNT_ID, Teller, output

TELLER = Teller()


def projected(outputs: Iterable[Output]) -> Rows:
    rows = Rows()
    for record in story.received(list(outputs)):
        project(record, rows)
    return rows


def project(record: Received, rows: Rows) -> None:
    HANDLERS[short_name(record.topic)](record, rows)


def of(rows: Rows, table: Table) -> list[dict[str, object]]:
    """The rows of one table by column, fresh and merged together."""
    found = []
    for written, fresh, merged in rows.written():
        if written is table:
            found += [dict(zip(table.columns, row, strict=True)) for row in (*fresh, *merged)]
    return found


def run_ended(outcome: str, at: int) -> Output:
    fact = RunEnded(run=TELLER.run_id(0), account=ACCOUNT_ID, at=at, outcome=outcome)  # type: ignore[arg-type]
    return output("run-facts", TELLER.run_id(0), fact)


def delivery_ended(outcome: str) -> Output:
    fact = DeliveryEnded(
        delivery=TELLER.delivery_id(0),
        account=ACCOUNT_ID,
        endpoint=story.ENDPOINT,
        event=TELLER.event_id(0),
        at=story.T0,
        outcome=outcome,  # type: ignore[arg-type]
        reason="out of the window",
    )
    return output("delivery-facts", TELLER.delivery_id(0), fact)


def root(chain: bytes) -> Output:
    told = ReceiptRoot(account=ACCOUNT_ID, day=0, leaves=1, root=chain * 32, previous=bytes(32), chain=chain * 32)
    return Output("receipt-roots", ACCOUNT_ID.encode(), encode(told))


@pytest.mark.parametrize(
    ("chains", "other"), [(b"a", None), (b"aa", None), (b"ab", b"b"), (b"abc", b"b"), (b"aab", b"b")]
)
def test_the_first_root_of_a_day_stands_and_the_first_that_differs_is_kept(chains: bytes, other: bytes | None) -> None:
    rows = projected([root(bytes((chain,))) for chain in chains])
    (row,) = of(rows, tables.RECEIPT_ROOTS)
    assert (row["root"], row["chain"]) == (b"a" * 32, b"a" * 32)
    assert row["other_chain"] == (None if other is None else other * 32)


@pytest.mark.parametrize(
    "value",
    [
        ReceiptRoot(account=ACCOUNT_ID, day=0, leaves=1, root=b"short", previous=bytes(32), chain=bytes(32)),
        ReceiptRoot(account=ACCOUNT_ID, day=2**62, leaves=1, root=bytes(32), previous=bytes(32), chain=bytes(32)),
        ReceiptLeaves(account=ACCOUNT_ID, day=0, first=0, root=bytes(32), entries=b""),
        ReceiptLeaves(account=ACCOUNT_ID, day=0, first=0, root=bytes(32), entries=bytes(88 * 1025)),
        ReceiptLeaves(account=ACCOUNT_ID, day=0, first=0, root=bytes(32), entries=bytes(89)),
    ],
    ids=["a short hash", "a day out of range", "no leaves", "too many", "half a leaf"],
)
def test_a_receipt_that_no_row_can_hold_is_refused(value: Message) -> None:
    topic = "receipt-leaves" if isinstance(value, ReceiptLeaves) else "receipt-roots"
    with pytest.raises(Reject):
        projected([Output(topic, ACCOUNT_ID.encode(), encode(value))])


def test_an_event_keeps_its_bytes_and_its_place() -> None:
    [row] = of(projected([TELLER.event(0, b'{"b": 1.10,"a":1e2 ,"a":2}')]), tables.EVENTS)
    assert row["properties"] == b'{"b": 1.10,"a":1e2 ,"a":2}'
    assert (row["identifier"], row["account"], row["offset"]) == ("e:shop/order", ACCOUNT_ID, 0)


def test_the_first_record_of_an_id_is_the_event() -> None:
    rows = projected([TELLER.event(0, b'{"n":1}'), TELLER.event(0, b'{"n":2}')])
    assert [row["properties"] for row in of(rows, tables.EVENTS)] == [b'{"n":1}']


def test_an_outcome_belongs_to_the_record_it_names() -> None:
    [row] = of(projected([TELLER.matched(3)]), tables.EVENT_OUTCOMES)
    assert f"events:{row['partition']}:{row['offset']}" == TELLER.source(3)
    matches = of(projected([TELLER.matched(3)]), tables.EVENT_MATCHES)
    assert {str(row["kind"]) for row in matches} == {"run", "delivery"}


def test_a_run_is_queued_before_anything_is_known_of_it() -> None:
    [row] = of(projected([TELLER.start_run(0)]), tables.RUNS)
    assert (row["status"], row["plan_version"], row["plan_name"]) == ("queued", 3, "Send a mail")
    assert row["input"] == b'{"total":12.50}'


def test_the_first_end_of_a_run_stands() -> None:
    rows = projected([*TELLER.run_facts(0), run_ended("failed", story.T0 + 9000)])
    assert [row["status"] for row in of(rows, tables.RUNS)] == ["completed"]


@pytest.mark.parametrize("is_first", [True, False], ids=["stale first", "stale last"])
def test_stale_is_the_weakest_end(is_first: bool) -> None:
    told = [run_ended("stale", story.T0), *TELLER.run_facts(0)]
    rows = projected(told if is_first else [*told[1:], told[0]])
    assert [row["status"] for row in of(rows, tables.RUNS)] == ["completed"]


def test_a_real_end_stands_over_that_of_a_dead_letter_which_was_sent_again() -> None:
    parked = run_ended("dead_lettered", story.T0)
    assert [row["status"] for row in of(projected([parked]), tables.RUNS)] == ["dead_lettered"]
    begun = projected([parked, *TELLER.run_facts(0)[:1]])
    assert [row["status"] for row in of(begun, tables.RUNS)] == ["dead_lettered"]
    for told in ([parked, *TELLER.run_facts(0)], [*TELLER.run_facts(0), parked]):
        assert [row["status"] for row in of(projected(told), tables.RUNS)] == ["completed"]
    delivered = projected([delivery_ended("dead_lettered"), TELLER.delivery(0), TELLER.attempted(0)])
    assert [row["status"] for row in of(delivered, tables.DELIVERIES)] == ["succeeded"]


def test_an_event_that_a_replay_wrote_is_no_row() -> None:
    [posted] = story.received([TELLER.event(0)])
    again = msgspec.structs.replace(decode(posted.value, Event), replay="rpl_1")
    assert of(projected([output("events", again.id, again)]), tables.EVENTS) == []


def test_a_run_that_is_only_stale_says_so() -> None:
    [row] = of(projected([TELLER.start_run(0), run_ended("stale", story.T0)]), tables.RUNS)
    assert row["status"] == "stale"


def test_a_run_that_is_held_back_says_for_what_as_last_told() -> None:
    [asked] = story.received([TELLER.start_run(0)])
    part = FlowPart(key="gold", priority=1, partition=0, offset=0, at=story.T0)
    start = msgspec.structs.replace(decode(asked.value, StartRun), flow=part)
    common = {"run": start.run, "account": ACCOUNT_ID, "at": story.T0, "subscription": story.SUBSCRIPTION}
    told = [
        RunWaiting(**common, key="gold", reason="throttle", until=story.T0 + 1_000),  # type: ignore[arg-type]
        RunWaiting(**common, key="gold", reason="concurrency"),  # type: ignore[arg-type]
    ]
    records = [output("run-facts", start.run, fact) for fact in told]
    [row] = of(projected([output("run-commands", start.run, start), *records]), tables.RUNS)
    assert (row["status"], row["flow_key"]) == ("queued", "gold")
    assert (row["waiting_reason"], row["waiting_until"]) == ("concurrency", None)


@pytest.mark.parametrize(("own", "shown"), [("gold", "gold"), (None, "acme")])
def test_a_key_in_the_flow_of_its_account_is_shown_where_its_subscription_has_none(own: str | None, shown: str) -> None:
    [asked] = story.received([TELLER.start_run(0)])
    parts = [
        None if key is None else FlowPart(key=key, priority=1, partition=0, offset=0, at=story.T0)
        for key in (own, "acme")
    ]
    start = msgspec.structs.replace(decode(asked.value, StartRun), flow=parts[0], account_flow=parts[1])
    [row] = of(projected([output("run-commands", start.run, start)]), tables.RUNS)
    assert row["flow_key"] == shown


def test_a_run_keeps_its_own_input_beside_the_list_that_it_worked_on() -> None:
    bundled = RunBundled(run=TELLER.run_id(0), account=ACCOUNT_ID, at=story.T0, input=Raw(b"[1, 2]"))
    [row] = of(projected([output("run-facts", bundled.run, bundled), TELLER.start_run(0)]), tables.RUNS)
    assert (row["input"], row["bundle"]) == (b'{"total":12.50}', b"[1, 2]")


def test_a_run_that_was_absorbed_names_the_other() -> None:
    fact = RunEnded(run=TELLER.run_id(0), account=ACCOUNT_ID, at=story.T0, outcome="absorbed", into=TELLER.run_id(1))
    [row] = of(projected([TELLER.start_run(0), output("run-facts", fact.run, fact)]), tables.RUNS)
    assert (row["status"], row["absorbed_into"]) == ("absorbed", TELLER.run_id(1).removeprefix("exec_"))


def test_a_step_shows_its_last_attempt_and_keeps_each() -> None:
    rows = projected(TELLER.run_facts(0))
    [step] = of(rows, tables.STEPS)
    assert (step["status"], step["attempts"], step["error_code"]) == ("completed", 2, None)
    attempts = of(rows, tables.STEP_ATTEMPTS)
    assert [(row["attempt"], row["status"], row["error_code"]) for row in attempts] == [
        (1, "failed", "HTTP_503"),
        (2, "completed", None),
    ]


def test_a_step_that_was_skipped_has_no_attempts() -> None:
    fact = StepSkipped(run=TELLER.run_id(0), account=ACCOUNT_ID, at=story.T0, node="no", type="http")
    rows = projected([output("run-facts", fact.run, fact)])
    [step] = of(rows, tables.STEPS)
    assert (step["status"], step["type"], step["attempts"], step["started_at"]) == ("skipped", "http", 0, None)
    assert step["ended_at"] is not None
    assert not of(rows, tables.STEP_ATTEMPTS)


def test_a_step_that_waits_says_until_when() -> None:
    [step] = of(projected(TELLER.run_facts(0)[:3]), tables.STEPS)
    assert (step["status"], step["error_code"]) == ("retrying", "HTTP_503")
    assert step["retry_at"] is not None


def test_a_delivery_shows_its_last_attempt() -> None:
    told = [TELLER.delivery(0), TELLER.attempted(0, "retrying", status=503)]
    [row] = of(projected(told), tables.DELIVERIES)
    assert (row["status"], row["attempts"], row["last_status"]) == ("retrying", 1, 503)
    assert row["next_attempt_at"] is not None
    [row] = of(projected([*told, TELLER.attempted(0, attempt=2)]), tables.DELIVERIES)
    assert (row["status"], row["attempts"], row["next_attempt_at"]) == ("succeeded", 2, None)


def test_an_attempt_that_came_twice_is_there_once() -> None:
    rows = projected([TELLER.attempted(0, "retrying", status=503), TELLER.attempted(0, "failed", status=500)])
    assert [row["outcome"] for row in of(rows, tables.DELIVERY_ATTEMPTS)] == ["retrying"]


def test_a_late_stale_fact_leaves_a_delivered_message_delivered() -> None:
    rows = projected([TELLER.delivery(0), TELLER.attempted(0), delivery_ended("stale")])
    assert [row["status"] for row in of(rows, tables.DELIVERIES)] == ["succeeded"]


def test_asking_for_a_further_attempt_says_the_same_of_the_delivery() -> None:
    first = of(projected([TELLER.delivery(0)]), tables.DELIVERIES)
    later = of(projected([TELLER.delivery(0, attempt=2, topic="deliveries-tx")]), tables.DELIVERIES)
    assert first == later


def test_a_row_is_fresh_when_its_own_record_is_in_the_batch() -> None:
    def fresh(*outputs: Output) -> list[str]:
        return [table.name for table, rows, _ in projected(outputs).written() if rows]

    assert fresh(TELLER.delivery(0), TELLER.attempted(0)) == ["delivery_attempts", "deliveries"]
    assert fresh(TELLER.attempted(0)) == ["delivery_attempts"]
    assert fresh(TELLER.delivery(0, attempt=2)) == []


@pytest.mark.parametrize("topic", sorted(set(HANDLERS) - {"dead-letters", "dead-letters-tx"}))
@pytest.mark.parametrize("value", [None, b"", b"garbage", b"[]", b"{}", b'{"id":1}', b"\xff\xfe"])
def test_garbage_is_refused_and_leaves_no_row(topic: str, value: bytes | None) -> None:
    rows = Rows()
    with pytest.raises(Reject):
        project(Written(f"millrace.{topic}.v1", 0, 0, story.T0, b"k", value), rows)
    assert rows.written() == []


def test_a_value_out_of_range_leaves_no_row() -> None:
    bad = RunEnded(run=TELLER.run_id(0), account=ACCOUNT_ID, at=10**18, outcome="completed")
    rows = Rows()
    with pytest.raises(Reject, match="not a time"):
        project(Written("millrace.run-facts.v1", 0, 0, story.T0, b"k", encode(bad)), rows)
    assert rows.written() == []


@pytest.mark.parametrize(
    "headers", [(), (("dead-partition", b"x"), ("dead-offset", b"9" * 30), ("account", b"\xff\x00"))]
)
def test_any_dead_letter_is_a_row(headers: tuple[tuple[str, bytes], ...]) -> None:
    rows = Rows()
    project(Written("millrace.ns.dead-letters.v1", 1, 7, story.T0, None, None, headers), rows)
    [row] = of(rows, tables.DEAD_LETTERS)
    assert (row["topic"], row["partition"], row["offset"], row["source_partition"]) == ("dead-letters", 1, 7, None)


def test_an_audit_entry_is_one_row_and_the_first_of_an_id_stands() -> None:
    first = AuditEntry(
        id=ids.new_id(ids.AUDIT), account="acc", at=1, kind="action.requested", actor="k", params=Raw(b'{"a":1}')
    )
    rows = Rows()
    for entry in (first, msgspec.structs.replace(first, actor="other")):
        output = audit.to_output(entry)
        HANDLERS["audit"](Written("millrace.audit.v1", 0, 0, 1, output.key, output.value, output.headers), rows)
    ((table, (row,), merged),) = rows.written()
    assert (table.name, merged) == ("audit", [])
    named = dict(zip(table.columns, row, strict=True))
    assert (named["actor"], named["params"], named["result"]) == ("k", b'{"a":1}', None)

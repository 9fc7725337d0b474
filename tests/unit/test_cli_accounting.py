"""The accounting of `millrace verify`, from records alone: what has an outcome, what is alive, what is lost."""

from collections.abc import Iterable, Mapping

import msgspec

from millrace_cli.accounting import TIMER_GRACE_MS, Accounting, Report, Span
from millrace_core.dead_letters import dead_letter
from millrace_core.limits import FLOW_TOLD_EVERY_MS
from millrace_core.messages import (
    AdmitRun,
    AskAdmission,
    CancelTimer,
    Event,
    EventFact,
    Message,
    Raw,
    RunEnded,
    RunWaiting,
    SetTimer,
    Step,
    StepResult,
    decode,
    encode,
)
from millrace_core.record import SOURCE, Output, Written
from millrace_kafka.topics import short_name
from tests.support import story
from tests.support.story import ACCOUNT_ID, T0, Teller, output

TELLER = Teller()
PASSED = 10**9
TOPICS_READ = (
    "events",
    "run-commands",
    "run-commands-tx",
    "admissions",
    "steps",
    "step-results",
    "deliveries",
    "deliveries-tx",
    "deliveries-overflow",
    "timers",
    "timers-tx",
)


def judged(outputs: Iterable[Output], *, unread: Mapping[str, int] | None = None, now_ms: int = T0) -> Report:
    """The report when every reader has passed everything, but for topics whose readers stand at an offset."""
    book = Accounting()
    for record in story.received(list(outputs)):
        book.feed(record, short_name(record.topic))
    positions = {(topic, partition): PASSED for topic in TOPICS_READ for partition in range(3)}
    positions |= {(topic, n): at for topic, at in (unread or {}).items() for n in range(3)}
    return book.report(positions, now_ms=now_ms)


def timer(owner: str, due: int, *, id: str = "tmr_" + "1" * 32, record: bytes = b"{}", topic: str = "timers") -> Output:
    to = "deliveries-tx" if topic == "timers" else "run-commands-tx"
    message: Message = SetTimer(
        id=id,
        owner=owner,
        account=ACCOUNT_ID,
        due=due,
        topic=to,  # type: ignore[arg-type]
        key="k",
        record=Raw(record),
    )
    return output(topic, owner, message)


def step(attempt: int) -> Output:
    message = Step(
        run=TELLER.run_id(0),
        account=ACCOUNT_ID,
        node="mail",
        attempt=attempt,
        type="http",
        key="k",
        timeout_s=1.0,
        config=Raw(b"{}"),
    )
    return output("steps", TELLER.run_id(0), message)


def result(attempt: int) -> Output:
    message = StepResult(
        run=TELLER.run_id(0), account=ACCOUNT_ID, node="mail", attempt=attempt, started_at=T0, duration_ms=1.0
    )
    return output("step-results", TELLER.run_id(0), message)


def without(outputs: list[Output], word: bytes) -> list[Output]:
    return [one for one in outputs if word not in (one.value or b"")]


RUNNING = without(TELLER.whole(0), b'"run.ended"')
DELIVERING = without(TELLER.whole(0), b'"succeeded"')


def test_a_whole_story_is_accounted_for() -> None:
    report = judged(record for n in range(5) for record in TELLER.whole(n))
    assert report.holds
    assert (report.events, report.matches) == (5, 10)
    assert report.lines()[-1] == "unaccounted 0"


def test_an_event_nobody_decided_is_lost_unless_it_lies_before_its_reader() -> None:
    assert judged([TELLER.event(0)]).unaccounted == 1
    waiting = judged([TELLER.event(0)], unread={"events": 0})
    assert waiting.holds
    assert waiting.outcomes == {"waiting for the matcher": 1}


def test_a_replayed_record_has_an_outcome_of_its_own_and_is_no_event_more() -> None:
    (posted,) = story.received([TELLER.event(0)])
    first = msgspec.structs.replace(decode(posted.value, Event), replay="rpl_1")
    book = Accounting()
    facts: list[Written] = []
    for offset, one in enumerate([first, msgspec.structs.replace(first, replay="rpl_2"), first]):
        book.feed(Written("millrace.events.v1", 0, offset, T0, b"k", encode(one)), "events")
        fact = EventFact(event=one.id, account=ACCOUNT_ID, outcome="unmatched", at=T0)
        source = ((SOURCE, b"millrace.events.v1:0:%d" % offset),)
        facts.append(Written("millrace.event-facts.v1", 0, offset, T0, b"k", encode(fact), source))
    positions = {("events", 0): 3}
    assert book.report(positions, now_ms=T0).unaccounted == 3, "each needs an outcome"
    for told in facts[:2]:
        book.feed(told, "event-facts")
    report = book.report(positions, now_ms=T0)
    assert (report.unaccounted, report.duplicates, book.rows().get("events")) == (1, 0, None)
    book.feed(facts[2], "event-facts")
    assert book.report(positions, now_ms=T0).duplicates == 1, "one replay decided twice is a duplicate"


def test_an_unreadable_event_must_be_a_dead_letter() -> None:
    garbage = Output("events", b"k", b"garbage")
    [record] = story.received([garbage])
    assert judged([garbage]).unaccounted == 1
    assert judged([garbage, dead_letter(record, "not JSON")]).outcomes == {"dead letter": 1}


def test_a_child_that_was_never_asked_for_is_lost() -> None:
    report = judged([TELLER.event(0), TELLER.matched(0)])
    assert report.unaccounted == 2
    assert all("was never asked for" in line for line in report.named)


def test_a_run_that_neither_ended_nor_goes_on_is_lost() -> None:
    assert judged(RUNNING).unaccounted == 1


def test_a_run_lives_before_its_readers() -> None:
    assert judged(RUNNING, unread={"run-commands": 0}).runs == {"waiting for the orchestrator": 1}
    assert judged([*RUNNING, step(3)], unread={"steps": 0}).runs == {"in the executor's lane": 1}
    told = [*RUNNING, step(3), result(3)]
    assert judged(told, unread={"step-results": 0}).runs == {"result waiting for the orchestrator": 1}


def test_a_step_that_its_executor_has_passed_without_a_result_is_lost() -> None:
    assert judged([*RUNNING, step(3)]).unaccounted == 1


def test_a_run_lives_while_a_retry_is_due_but_not_by_its_time_limit() -> None:
    retry = timer(TELLER.run_id(0), T0 + 5000, record=b'{"purpose":"retry"}', topic="timers-tx")
    limit = timer(TELLER.run_id(0), T0 + 5000, record=b'{"purpose":"timeout"}', topic="timers-tx")
    assert judged([*RUNNING, retry]).runs == {"waiting for a timer": 1}
    assert judged([*RUNNING, limit]).unaccounted == 1


HELD = [one for one in TELLER.whole(0) if one.topic not in ("run-facts", "steps", "step-results")]


def waiting(at: int, until: int | None = None) -> Output:
    message = RunWaiting(
        run=TELLER.run_id(0),
        account=ACCOUNT_ID,
        at=at,
        subscription=story.SUBSCRIPTION,
        key="gold",
        reason="concurrency" if until is None else "throttle",
        until=until,
    )
    return output("run-facts", message.run, message)


def test_a_run_that_its_flow_holds_back_lives_as_long_as_that_is_confirmed() -> None:
    asked = AskAdmission(
        run=TELLER.run_id(0), account=ACCOUNT_ID, subscription="s", key="", priority=1, partition=0, offset=0, at=T0
    )
    assert judged(HELD).unaccounted == 1
    assert judged([*HELD, output("admissions", "s", asked)], unread={"admissions": 0}).holds
    assert judged([*HELD, output("admissions", "s", asked)]).unaccounted == 1
    report = judged([*HELD, waiting(T0)])
    assert report.runs == {"held back by a flow": 1}
    assert "key 'gold': concurrency" in report.live[0]
    days = 2 * FLOW_TOLD_EVERY_MS + TIMER_GRACE_MS
    assert judged([*HELD, waiting(T0)], now_ms=T0 + days).holds
    assert judged([*HELD, waiting(T0)], now_ms=T0 + days + 1).unaccounted == 1
    assert judged([*HELD, waiting(T0), waiting(T0 + 1)], now_ms=T0 + days + 1).holds
    assert judged([*HELD, waiting(T0, until=T0 + 2 * days)], now_ms=T0 + days + 1).holds


def test_a_run_that_was_admitted_lives_before_the_orchestrator_and_no_longer_by_its_wait() -> None:
    admitted = output("run-commands-tx", TELLER.run_id(0), AdmitRun(run=TELLER.run_id(0), account=ACCOUNT_ID))
    told = [*HELD, waiting(T0), admitted]
    assert judged(told, unread={"run-commands-tx": 0}).runs == {"waiting for the orchestrator": 1}
    assert judged([*told, *TELLER.run_facts(0)[:2]]).unaccounted == 1, "its step is nowhere"


def test_an_absorbed_run_is_over() -> None:
    ended = RunEnded(run=TELLER.run_id(0), account=ACCOUNT_ID, at=T0, outcome="absorbed", into=TELLER.run_id(1))
    report = judged([*HELD, waiting(T0), output("run-facts", ended.run, ended)])
    assert report.holds
    assert report.runs == {"absorbed": 1}


def test_a_delivery_lives_by_its_record_or_its_timer() -> None:
    assert judged(DELIVERING).unaccounted == 1
    assert judged(DELIVERING, unread={"deliveries": 0}).deliveries == {"in the dispatcher's lane": 1}
    waiting = judged([*DELIVERING, timer(TELLER.delivery_id(0), T0 + 5000)])
    assert waiting.deliveries == {"waiting for a timer": 1}
    assert waiting.next_timer_ms == T0 + 5000


def test_a_timer_that_was_cancelled_or_is_long_overdue_keeps_nothing_alive() -> None:
    due = timer(TELLER.delivery_id(0), T0)
    id = "tmr_" + "1" * 32
    cancelled = output("timers", TELLER.delivery_id(0), CancelTimer(id=id, owner=TELLER.delivery_id(0), account="a"))
    assert judged([*DELIVERING, due, cancelled]).unaccounted == 1
    assert judged([*DELIVERING, due], now_ms=T0 + TIMER_GRACE_MS).holds
    assert judged([*DELIVERING, due], now_ms=T0 + TIMER_GRACE_MS + 1).unaccounted == 1
    assert judged([*DELIVERING, due], now_ms=T0 + TIMER_GRACE_MS + 1, unread={"timers": 0}).holds


def test_a_run_that_ended_twice_is_a_duplicate() -> None:
    ended = [one for one in TELLER.whole(0) if b'"run.ended"' in (one.value or b"")]
    report = judged([*TELLER.whole(0), *ended])
    assert (report.duplicates, report.unaccounted) == (1, 0)
    assert not report.holds


def test_repeats_of_the_matcher_are_no_duplicates() -> None:
    """At least once: commands, deliveries and facts may come again with the same ids."""
    again = [TELLER.start_run(0), TELLER.delivery(0), TELLER.matched(0)]
    assert judged([*TELLER.whole(0), *again]).holds


def test_rows_are_counted_once_however_often_they_are_told() -> None:
    book = Accounting()
    for record in story.received([*TELLER.whole(0), TELLER.matched(0), TELLER.delivery(0, attempt=2)]):
        book.feed(record, short_name(record.topic))
    assert book.rows() == {
        "events": 1,
        "event_outcomes": 1,
        "event_matches": 2,
        "runs": 1,
        "steps": 1,
        "step_attempts": 2,
        "deliveries": 1,
        "delivery_attempts": 2,
    }


def test_what_is_not_over_says_where_it_waits() -> None:
    waiting = judged([*DELIVERING, timer(TELLER.delivery_id(0), T0 + 5000)])
    (line,) = waiting.live
    assert line.startswith(f"waits: delivery {TELLER.delivery_id(0)} is waiting for timer until ")
    assert line in waiting.lines()
    (first,) = judged([TELLER.event(0)], unread={"events": 0}).live
    assert "in lane events/" in first
    assert first.endswith("first in line")
    others = judged([TELLER.event(0), TELLER.event(0), TELLER.event(0)], unread={"events": 0}).live
    assert [line.partition(" behind ")[2] for line in others] == ["", "up to 1 records", "up to 2 records"]


def test_one_account_alone_is_judged() -> None:
    for account, lost in ((ACCOUNT_ID, 1), ("acc_" + "b" * 32, 0)):
        book = Accounting(account)
        for record in story.received(RUNNING):
            book.feed(record, short_name(record.topic))
        positions = {(topic, partition): PASSED for topic in TOPICS_READ for partition in range(3)}
        report = book.report(positions, now_ms=T0)
        assert (report.unaccounted, report.events) == (lost, lost)


def test_what_began_outside_the_span_is_not_judged() -> None:
    book = Accounting()
    for n, at_ms in ((0, T0), (1, T0 + 1000), (2, T0 + 2000)):
        event = TELLER.event(n)
        book.feed(Written("millrace.events.v1", 0, n, at_ms, event.key, event.value, event.headers), "events")
    positions = {("events", partition): PASSED for partition in range(3)}
    for span, lost in ((Span(), 3), (Span(T0 + 1000), 2), (Span(T0 + 1000, T0 + 2000), 1), (Span(None, T0), 0)):
        report = book.report(positions, now_ms=T0, span=span)
        assert (report.unaccounted, report.events) == (lost, lost)

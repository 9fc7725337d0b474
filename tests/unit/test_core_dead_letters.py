"""A dead letter is the record as it was, and why."""

from millrace_core import limits
from millrace_core.dead_letters import dead_letter
from millrace_core.record import Written, header

RECORD = Written("millrace.events.v1", 2, 40, 0, b"k", b"\xff\x00", (("account", b"a"), ("dead-reason", b"earlier")))


def test_it_keeps_the_record_and_says_why() -> None:
    letter = dead_letter(RECORD, "no é", topic="dead-letters-tx")
    assert (letter.topic, letter.key, letter.value, letter.route) == ("dead-letters-tx", b"k", b"\xff\x00", b"k")
    assert letter.headers == (
        ("account", b"a"),
        ("dead-topic", b"millrace.events.v1"),
        ("dead-partition", b"2"),
        ("dead-offset", b"40"),
        ("dead-reason", "no é".encode()),
    )


def test_a_reason_has_a_bound_and_may_hold_anything() -> None:
    written = dead_letter(RECORD, "\ud800" + "x" * 5000)
    reason = header(Written("t", 0, 0, 0, None, None, written.headers), "dead-reason")
    assert reason is not None
    assert len(reason) < limits.DEAD_LETTER_REASON_CHARS_MAX + 10


def test_a_record_without_key_has_a_route() -> None:
    assert dead_letter(Written("t", 1, 0, 0, None, None), "x").route == b"t:1"

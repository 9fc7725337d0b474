"""What the matcher makes of a replayed record: new children, past the uniqueKey window, and each record once."""

import msgspec
import pytest

from millrace_core import limits
from millrace_core.messages import Event, encode
from millrace_core.record import Written
from tests.unit.test_matcher_handlers import (
    ACCOUNT,
    NOON,
    SUB,
    event,
    facts_of,
    matcher,
    record_of,
    to_endpoint,
    to_plan,
)

REPLAY, OTHER = f"rpl_{1:032x}", f"rpl_{2:032x}"
FIRST, SECOND = f"{SUB[:-1]}0", f"{SUB[:-1]}1"


def again(one: Event, offset: int, replay: str = REPLAY, only: str | None = None) -> Written:
    return record_of(msgspec.structs.replace(one, replay=replay, only=only), offset=offset, at=NOON + offset)


def test_a_replay_starts_anew_what_the_event_started_once_for_each_replay() -> None:
    handler, one = matcher(to_plan()), event(uniqueKey="k")
    runs = [
        fact.runs[0].id
        for offset, record in enumerate([record_of(one), again(one, 1), again(one, 2, OTHER)])
        for fact in facts_of(handler.handle([record], offset))
    ]
    assert len(set(runs)) == 3


def test_a_record_that_a_replay_wrote_twice_is_told() -> None:
    handler, one = matcher(to_endpoint()), event(uniqueKey="k")
    first = handler.handle([record_of(one), again(one, 1)], 1)
    assert [fact.outcome for fact in facts_of(first)] == ["matched", "matched"]
    repeat = handler.handle([again(one, 50_000)], 1)
    (fact,) = facts_of(repeat)
    assert repeat.outputs == []
    assert (fact.outcome, fact.duplicate_of) == ("duplicate", one.id)
    assert REPLAY in (fact.reason or "")
    same = handler.handle([again(one, 1)], 1)
    assert [fact.outcome for fact in facts_of(same)] == ["matched"], "the same record read again is handled again"


def test_what_a_replay_wrote_is_told_after_a_restart() -> None:
    handler, one = matcher(to_endpoint()), event()
    changes = handler.handle([again(one, 1)], 1).changes
    risen = matcher(to_endpoint())
    risen.restore(3, [(key, value, NOON) for _, key, value in changes])
    assert [fact.outcome for fact in facts_of(risen.handle([again(one, 9)], 1))] == ["duplicate"]


def test_a_replay_to_one_subscription_is_heard_by_it_alone() -> None:
    handler = matcher(to_plan(), to_plan())
    (fact,) = facts_of(handler.handle([again(event(), 1, only=SECOND)], 1))
    assert [run.subscription for run in fact.runs] == [SECOND]
    (none,) = facts_of(handler.handle([again(event(), 2, OTHER, only=f"sub_{9:032x}")], 1))
    assert none.outcome == "unmatched"


@pytest.mark.parametrize(("only", "outcome"), [(FIRST, "matched"), (None, "unmatched")])
def test_only_a_replay_that_names_it_reaches_a_subscription_made_long_after(only: str | None, outcome: str) -> None:
    handler = matcher(to_plan())
    young = msgspec.structs.replace(to_plan(), created_at=NOON + limits.SUBSCRIPTION_REACH_BACK_MS + 1)
    handler.followers["subscription"].apply(ACCOUNT, FIRST, encode(young))
    late = again(event(), limits.SUBSCRIPTION_REACH_BACK_MS * 2, only=only)  # written when it is in force
    assert [fact.outcome for fact in facts_of(handler.handle([late], 1))] == [outcome]

"""What a flow may ask for, and in which words it is refused."""

import re

import pytest

from millrace_core.errors import Reject
from millrace_core.flow import AT_ONCE, check_account_flow, check_flow, makes_lists
from millrace_core.messages import Batch, CancelOn, Concurrency, Debounce, FlowControl, Raw, Throttle

DEBOUNCE, BATCH = Debounce(quiet_s=1, longest_s=2), Batch(size=10, wait_s=60)


@pytest.mark.parametrize(
    "flow",
    [
        AT_ONCE,
        FlowControl(key="input.user.id", priority="event.received_at % 7", drain=True),
        FlowControl(concurrency=Concurrency(floor=1, ceiling=2, total=3), throttle=Throttle(limit=1, period_s=0.5)),
        FlowControl(debounce=DEBOUNCE, concurrency=Concurrency(ceiling=1)),
        FlowControl(
            batch=BATCH, cancel_on=CancelOn(pattern="e:a/*", filter=Raw(b'{"a":[1]}'), where="true", key="'k'")
        ),
    ],
)
def test_what_can_be_asked_for(flow: FlowControl) -> None:
    check_flow(flow)


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        (FlowControl(key="input."), "key: "),
        (FlowControl(priority="(("), "priority: "),
        (FlowControl(concurrency=Concurrency()), "needs a ceiling"),
        (FlowControl(concurrency=Concurrency(ceiling=0)), "concurrency.ceiling must be 1 to"),
        (FlowControl(concurrency=Concurrency(total=10**6)), "concurrency.total must be 1 to"),
        (FlowControl(concurrency=Concurrency(floor=-1, total=1)), "floor must not be negative"),
        (FlowControl(concurrency=Concurrency(floor=1, ceiling=1)), "name a total"),
        (FlowControl(concurrency=Concurrency(floor=3, ceiling=2, total=9)), "here 2"),
        (FlowControl(throttle=Throttle(limit=0, period_s=1)), "throttle.limit"),
        (FlowControl(throttle=Throttle(limit=1, period_s=0)), "throttle.period_s"),
        (FlowControl(debounce=Debounce(quiet_s=2, longest_s=1)), "must not be below quiet_s"),
        (FlowControl(debounce=Debounce(quiet_s=1, longest_s=10**9)), "debounce.longest_s must be"),
        (FlowControl(batch=Batch(size=1, wait_s=1)), "batch.size must be 2 to"),
        (FlowControl(batch=Batch(size=2, wait_s=0)), "batch.wait_s"),
        (FlowControl(batch=BATCH, debounce=DEBOUNCE), "cannot be had together"),
        (FlowControl(cancel_on=CancelOn(pattern="a/b")), "cancel_on: "),
        (FlowControl(cancel_on=CancelOn(pattern="e:a/b", filter=Raw(b"[]"))), "cancel_on: "),
        (FlowControl(cancel_on=CancelOn(pattern="e:a/b", where="((")), "cancel_on.where: "),
    ],
)
def test_what_cannot(flow: FlowControl, words: str) -> None:
    with pytest.raises(Reject, match=re.escape(words)):
        check_flow(flow)


def test_lists_are_made_by_batches_and_debounces_of_all() -> None:
    assert makes_lists(FlowControl(batch=BATCH))
    assert makes_lists(FlowControl(debounce=Debounce(mode="all", quiet_s=1, longest_s=1)))
    assert not makes_lists(FlowControl(debounce=DEBOUNCE))
    assert not makes_lists(AT_ONCE)


def test_the_flow_of_an_account_makes_no_run_of_several() -> None:
    check_account_flow(FlowControl(key="input.user", concurrency=Concurrency(ceiling=1), drain=True))
    for flow, name in ((FlowControl(batch=BATCH), "batch"), (FlowControl(debounce=DEBOUNCE), "debounce")):
        with pytest.raises(Reject, match=f"^{name} makes one run of several"):
            check_account_flow(flow)
    with pytest.raises(Reject, match="needs a ceiling"):
        check_account_flow(FlowControl(concurrency=Concurrency()))

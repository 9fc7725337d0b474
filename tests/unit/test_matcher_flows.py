"""What a flow asks of the matcher: a key and a priority for each match, and the events that cancel."""

from typing import Any

import orjson
import pytest

from millrace_core import ids, limits
from millrace_core.event import make_event, parse_post, to_output
from millrace_core.handling import Handled
from millrace_core.messages import (
    AccountControl,
    Batch,
    CancelMatches,
    CancelOn,
    Concurrency,
    Debounce,
    EventFact,
    FlowControl,
    FlowPart,
    PlanControl,
    Raw,
    StartRun,
    SubscriptionControl,
    decode,
    encode,
)
from millrace_core.record import ID, SOURCE, Written, header
from millrace_matcher.handlers import MatcherHandler
from tests.support.records import as_record

ACCOUNT, SUB, JOB = "acc_1", f"sub_{1:032x}", f"job_{1:032x}"
NOON = 20_000 * ids.DAY_MS + ids.DAY_MS // 2


def matcher(flow: FlowControl | None, *, enabled: bool = True) -> MatcherHandler:
    handler = MatcherHandler()
    follow = handler.followers
    follow["plan"].apply(ACCOUNT, JOB, encode(PlanControl(account=ACCOUNT, plan=Raw(b"{}"))))
    control = SubscriptionControl(
        account=ACCOUNT,
        pattern="e:shop/order",
        target_kind="plan",
        target_id=JOB,
        created_at=0,
        enabled=enabled,
        flow=flow,
    )
    follow["subscription"].apply(ACCOUNT, SUB, encode(control))
    return handler


def posted(properties: Any, name: str = "order", *, offset: int = 9, replay: str | None = None) -> Written:
    body = orjson.dumps({"eventType": {"provider": "shop", "name": name}, "properties": properties})
    event = make_event(parse_post(body, now_ms=NOON), account=ACCOUNT, now_ms=NOON)
    if replay is not None:
        event = type(event)(**{name: getattr(event, name) for name in event.__struct_fields__} | {"replay": replay})
    output = to_output(event)
    return Written("millrace.events.v1", 3, offset, NOON, output.key, output.value, output.headers)


def part(handled: Handled) -> FlowPart | None:
    (output,) = handled.outputs
    return decode(output.value, StartRun).flow


def test_without_a_flow_a_start_says_nothing_of_one() -> None:
    handled = matcher(None).handle([posted({})], 1)
    assert part(handled) is None
    assert b'"flow"' not in (handled.outputs[0].value or b"")


def test_a_match_takes_its_place_in_the_flow_along() -> None:
    flow = FlowControl(key="input.user.id", priority="input.urgent ? 1 : 900")
    handled = matcher(flow).handle([posted({"user": {"id": "u7"}, "urgent": True})], 1)
    assert part(handled) == FlowPart(key="u7", priority=1, partition=3, offset=9, at=NOON)
    assert handled.outputs[0].topic == "run-commands", "starts have one way, with a flow or without"


@pytest.mark.parametrize(
    ("expression", "key"),
    [
        ("input.n", "7"),
        ("input.n > 3", "true"),
        ("input.list", '["a",1]'),
        ("event.identifier", "e:shop/order"),
        ("input.missing", ""),
        (None, ""),
    ],
)
def test_a_key_is_text_or_json_and_empty_where_there_is_none(expression: str | None, key: str) -> None:
    handled = matcher(FlowControl(key=expression)).handle([posted({"n": 7, "list": ["a", 1]})], 1)
    assert part(handled) == FlowPart(key=key, priority=100, partition=3, offset=9, at=NOON)


def test_a_long_key_stays_itself_and_within_its_bound() -> None:
    handler = matcher(FlowControl(key="input.k"))
    keys = set()
    for last in "ab":
        found = part(handler.handle([posted({"k": "x" * 5_000 + last})], 1))
        assert found is not None
        assert len(found.key) <= limits.FLOW_KEY_CHARS_MAX
        keys.add(found.key)
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("expression", "priority"),
    [("-5", 0), ("5000", 1_000), ("7.9", 7), ("'high'", 100), ("true", 100), ("input.missing", 100)],
)
def test_a_priority_is_a_number_within_its_bounds(expression: str, priority: int) -> None:
    found = part(matcher(FlowControl(priority=expression)).handle([posted({})], 1))
    assert found is not None
    assert found.priority == priority


@pytest.mark.parametrize(
    ("flow", "is_bundled"),
    [
        (FlowControl(batch=Batch(size=2, wait_s=1)), True),
        (FlowControl(debounce=Debounce(mode="all", quiet_s=1, longest_s=1)), True),
        (FlowControl(debounce=Debounce(quiet_s=1, longest_s=1)), False),
    ],
)
def test_inputs_go_along_only_where_lists_are_made(flow: FlowControl, is_bundled: bool) -> None:
    found = part(matcher(flow).handle([posted({})], 1))
    assert found is not None
    assert found.bundled == is_bundled


CANCELLING = FlowControl(key="input.id", cancel_on=CancelOn(pattern="e:shop/withdrawn", filter=Raw(b'{"ok":[true]}')))


def test_an_event_that_cancels_says_what_and_is_no_match() -> None:
    handled = matcher(CANCELLING).handle([posted({"id": 7, "ok": True}, "withdrawn")], 41)
    (output,) = handled.outputs
    command = decode(output.value, CancelMatches)
    assert (command.subscription, command.key, command.partition, command.offset) == (SUB, "7", 3, 9)
    assert output.key == command.run.encode() == header(as_record(output, 0), ID)
    assert header(as_record(output, 0), SOURCE) == b"millrace.events.v1:3:9"
    (fact,) = [decode(fact.value, EventFact) for fact in handled.facts]
    assert fact.outcome == "unmatched"
    again = matcher(CANCELLING).handle([posted({"id": 7, "ok": True}, "withdrawn")], 41)
    assert len(again.outputs) == 1


def test_an_event_may_cancel_and_start() -> None:
    flow = FlowControl(cancel_on=CancelOn(pattern="e:shop/order", key="'all'"))
    started, cancelled = matcher(flow).handle([posted({})], 1).outputs
    assert decode(started.value, StartRun).subscription == SUB
    assert decode(cancelled.value, CancelMatches).key == "all"


@pytest.mark.parametrize(
    ("event", "is_enabled"),
    [
        (posted({"id": 7, "ok": False}, "withdrawn"), True),
        (posted({"id": 7, "ok": True}, "other"), True),
        (posted({"id": 7, "ok": True}, "withdrawn", replay="rpl_1"), True),
        (posted({"id": 7, "ok": True}, "withdrawn"), False),
    ],
    ids=["its filter does not hold", "another event", "a replay of the past", "its subscription is off"],
)
def test_nothing_else_cancels(event: Written, is_enabled: bool) -> None:
    assert not matcher(CANCELLING, enabled=is_enabled).handle([event], 1).outputs


def test_a_subscription_without_it_cancels_no_more() -> None:
    handler = matcher(CANCELLING)
    handler.followers["subscription"].apply(ACCOUNT, SUB, None)
    assert not handler.handle([posted({"id": 7, "ok": True}, "withdrawn")], 1).outputs


def of_account(handler: MatcherHandler, flow: FlowControl | None) -> MatcherHandler:
    handler.followers["account"].apply(ACCOUNT, ACCOUNT, encode(AccountControl(flow=flow)))
    return handler


@pytest.mark.parametrize("flow", [None, FlowControl(key="'own'", priority="7")])
def test_a_match_takes_its_place_in_the_flow_of_its_account_along(flow: FlowControl | None) -> None:
    handler = of_account(matcher(flow), FlowControl(key="input.n", concurrency=Concurrency(ceiling=1)))
    (output,) = handler.handle([posted({"n": 4})], 1).outputs
    start = decode(output.value, StartRun)
    assert start.account_flow == FlowPart(key="4", priority=100, partition=3, offset=9, at=NOON)
    own = None if flow is None else FlowPart(key="own", priority=7, partition=3, offset=9, at=NOON)
    assert start.flow == own
    assert bytes(start.input) == b'{"n":4}'


@pytest.mark.parametrize("flow", [None, FlowControl()])
def test_an_account_that_asks_for_nothing_any_more_holds_nothing_back(flow: FlowControl | None) -> None:
    handler = of_account(of_account(matcher(None), FlowControl(drain=True)), flow)
    (output,) = handler.handle([posted({})], 1).outputs
    assert b"flow" not in (output.value or b"")


def test_an_event_cancels_by_the_flow_of_its_account() -> None:
    handler = of_account(matcher(None), CANCELLING)
    withdrawn = posted({"id": 7, "ok": True}, "withdrawn")
    (output,) = handler.handle([withdrawn], 41).outputs
    command = decode(output.value, CancelMatches)
    assert (command.subscription, command.account, command.key) == (ACCOUNT, ACCOUNT, "7")
    assert not of_account(handler, FlowControl()).handle([withdrawn], 42).outputs

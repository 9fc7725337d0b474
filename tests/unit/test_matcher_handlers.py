"""What the matcher makes of a record: outputs, facts, dedupe entries, tallies, dead letters."""

from typing import Any

import msgspec
import orjson
import pytest

from millrace_core import ids, limits, record
from millrace_core.event import make_event, parse_post, to_output
from millrace_core.handling import Handled
from millrace_core.messages import (
    Delivery,
    DeliveryChild,
    EndpointControl,
    Event,
    EventFact,
    EventRef,
    FlowPart,
    Message,
    PlanControl,
    Raw,
    RunChild,
    StartRun,
    SubscriptionControl,
    Tally,
    decode,
    encode,
    encode_with_payload,
)
from millrace_core.record import Output, Received, Written, header, payload_bytes
from millrace_matcher import outputs as written
from millrace_matcher.handlers import MatcherHandler, parked

DAY = ids.DAY_MS
NOON = 20_000 * DAY + DAY // 2
ACCOUNT = 'acc_"é'  # quoted wherever it stands
PLAN = b'{"id":"job_1","nodes":[1.10]}'
SUB, JOB, ENDPOINT = (f"{prefix}_{7:032x}" for prefix in ("sub", "job", "we"))
PROPERTIES = b'{"n": 1.10, "user":{"id":7}, "n":1e2, "text":"\\u0000"}'


def matcher(*subscriptions: SubscriptionControl) -> MatcherHandler:
    handler = MatcherHandler()
    follow = handler.followers
    follow["plan"].apply(ACCOUNT, JOB, encode(PlanControl(account=ACCOUNT, plan=Raw(PLAN))))
    endpoint = EndpointControl(account=ACCOUNT, url="https://a.example", secrets=("s",))
    follow["endpoint"].apply(ACCOUNT, ENDPOINT, encode(endpoint))
    for n, subscription in enumerate(subscriptions or (to_endpoint(),)):
        follow["subscription"].apply(ACCOUNT, f"{SUB[:-1]}{n:x}", encode(subscription))
    return handler


def to_endpoint(pattern: str = "e:custom/*", **more: Any) -> SubscriptionControl:
    return SubscriptionControl(
        account=ACCOUNT, pattern=pattern, target_kind="endpoint", target_id=ENDPOINT, created_at=0, **more
    )


def to_plan(pattern: str = "e:custom/x", **more: Any) -> SubscriptionControl:
    return SubscriptionControl(
        account=ACCOUNT, pattern=pattern, target_kind="plan", target_id=JOB, created_at=0, **more
    )


def event(properties: bytes = PROPERTIES, **members: Any) -> Event:
    body = orjson.dumps({"eventType": {"provider": "custom", "name": "x"}} | members)
    posted = parse_post(body[:-1] + b',"properties":' + properties + b"}", now_ms=NOON)
    return make_event(posted, account=ACCOUNT, now_ms=NOON)


def record_of(one: Event, offset: int = 0, at: int = NOON, partition: int = 3) -> Written:
    output = to_output(one, traceparent="00-trace")
    return Written("millrace.events.v1", partition, offset, at, output.key, output.value, output.headers)


def as_received(output: Output) -> Written:
    return Written(output.topic, 0, 0, 0, output.key, output.value, output.headers)


def facts_of(handled: Handled) -> list[EventFact]:
    return [decode(fact.value, EventFact) for fact in handled.facts]


def changed(one: Written, **members: Any) -> Written:
    return Written(**{name: members.get(name, getattr(one, name)) for name in one.__struct_fields__})


def test_an_event_becomes_a_delivery_and_a_fact() -> None:
    one = event(timestamp="2024-01-01T00:00:00Z")
    handled = matcher().handle([record_of(one, offset=9)], 41)
    (output,), (fact,) = handled.outputs, facts_of(handled)
    sent = decode(output.value, Delivery)
    assert output.topic == "deliveries"
    assert output.key == ENDPOINT.encode()
    assert sent.id == ids.delivery_id_of(one.id, ENDPOINT)
    assert (sent.account, sent.endpoint, sent.event, sent.attempt) == (ACCOUNT, ENDPOINT, one.id, 1)
    assert bytes(sent.body) == (
        b'{"id":"%b","type":"e:custom/x","timestamp":"2024-01-01T00:00:00.000Z","data":%b}'
        % (one.id.encode(), PROPERTIES)
    )
    assert payload_bytes(as_received(output)) == bytes(sent.body)
    assert fact == EventFact(
        event=one.id,
        account=ACCOUNT,
        outcome="matched",
        at=NOON,
        deliveries=(DeliveryChild(id=sent.id, subscription=f"{SUB[:-1]}0", endpoint=ENDPOINT),),
    )
    for made, id in ((output, sent.id), (handled.facts[0], one.id)):
        received = as_received(made)
        assert header(received, record.ID) == id.encode()
        assert header(received, record.ACCOUNT) == ACCOUNT.encode()
        assert header(received, record.SOURCE) == b"millrace.events.v1:3:9"
        assert header(received, record.CONTROL) == b"41"
        assert header(received, record.SURFACE) == b"ingest"
        assert header(received, record.TRACEPARENT) == b"00-trace"
    assert handled.facts[0].key == one.id.encode()


def test_an_event_becomes_a_run_with_its_plan_pinned() -> None:
    one = event()
    handled = matcher(to_plan()).handle([record_of(one)], 1)
    (output,) = handled.outputs
    command = decode(output.value, StartRun)
    assert output.topic == "run-commands"
    assert output.key == command.run.encode()
    assert command.run == ids.run_id_of(one.id, f"{SUB[:-1]}0")
    assert bytes(command.plan) == PLAN
    assert bytes(command.input) == PROPERTIES == payload_bytes(as_received(output))
    assert command.event == EventRef(id=one.id, identifier="e:custom/x", received_at=NOON)
    assert facts_of(handled)[0].runs == (RunChild(id=command.run, subscription=f"{SUB[:-1]}0"),)


@pytest.mark.parametrize("hops", [0, 3])
@pytest.mark.parametrize("timestamp", [None, "2024-01-01T00:00:00.000Z"])
def test_bytes_joined_by_hand_are_what_the_encoder_writes(hops: int, timestamp: str | None) -> None:
    one = Event(
        id=ids.new_id("evt"),
        account=ACCOUNT,
        identifier="e:a/b",
        received_at=NOON,
        timestamp=timestamp,
        hops=hops,
        properties=Raw(PROPERTIES),
    )
    at = record_of(one)
    origin = written.origin_of(at, one, PROPERTIES, {}, b"1")

    def same(output: Output, message: Message, last: bytes) -> None:
        value, start = encode_with_payload(message, Raw(last))
        assert output.value == value
        assert header(as_received(output), record.PAYLOAD) == start

    reference = EventRef(id=one.id, identifier="e:a/b", received_at=NOON, timestamp=timestamp, hops=hops)
    run = StartRun(
        run="exec_1", account=ACCOUNT, plan=Raw(PLAN), subscription='s"', event=reference, input=Raw(PROPERTIES)
    )
    same(written.start_run(origin, run="exec_1", subscription='s"', plan=PLAN), run, PROPERTIES)
    part = FlowPart(key='"é', priority=7, partition=3, offset=1, at=NOON, bundled=True)
    held = msgspec.structs.replace(run, flow=part)
    same(written.start_run(origin, run="exec_1", subscription='s"', plan=PLAN, flow=part), held, PROPERTIES)
    body = written.delivery_body(one, PROPERTIES)
    delivery = Delivery(
        id="dlv_1", account=ACCOUNT, endpoint='w"', event=one.id, type="e:a/b", created_at=at.timestamp,
        subscription="s", body=Raw(body),
    )  # fmt: skip
    same(written.delivery(origin, id="dlv_1", endpoint='w"', subscription="s", body=body), delivery, body)
    for runs, deliveries in ((1, 0), (0, 2), (2, 1), (0, 0)):
        fact = EventFact(
            event=one.id,
            account=ACCOUNT,
            outcome="matched" if runs or deliveries else "unmatched",
            at=at.timestamp,
            runs=tuple(RunChild(id=f"r{n}", subscription="s") for n in range(runs)),
            deliveries=tuple(DeliveryChild(id=f"d{n}", subscription="s", endpoint="w") for n in range(deliveries)),
        )
        (output,) = written.matched_facts(
            origin, [(f"r{n}", "s") for n in range(runs)], [(f"d{n}", "s", "w") for n in range(deliveries)]
        )
        assert output.value == encode(fact)


def test_a_fact_with_many_children_is_several() -> None:
    one = event()
    origin = written.origin_of(record_of(one), one, PROPERTIES, {}, b"1")
    facts = written.matched_facts(origin, [(f"r{n}", "s") for n in range(7_000)], [("d", "s", "w")])
    parsed = [decode(fact.value, EventFact) for fact in facts]
    assert [len(fact.runs) + len(fact.deliveries) for fact in parsed] == [5_000, 2_001]
    assert {run.id for fact in parsed for run in fact.runs} == {f"r{n}" for n in range(7_000)}


def test_two_subscriptions_to_one_endpoint_are_one_delivery() -> None:
    handler = matcher(to_endpoint(priority=5), to_endpoint("e:custom/x", priority=1))
    handled = handler.handle([record_of(event())], 1)
    assert len(handled.outputs) == 1
    assert decode(handled.outputs[0].value, Delivery).subscription == f"{SUB[:-1]}1"


def test_an_event_nobody_hears_has_an_outcome() -> None:
    handled = matcher(to_endpoint("e:other/*")).handle([record_of(event())], 1)
    assert handled.outputs == []
    assert [fact.outcome for fact in facts_of(handled)] == ["unmatched"]


@pytest.mark.parametrize("kind", ["plan", "endpoint"])
def test_a_target_that_is_gone_matches_nothing(kind: str) -> None:
    handler = matcher(to_endpoint(), to_plan())
    handler.followers[kind].apply(ACCOUNT, JOB if kind == "plan" else ENDPOINT, None)
    handled = handler.handle([record_of(event())], 1)
    assert [output.topic for output in handled.outputs] == ["deliveries" if kind == "plan" else "run-commands"]


def test_an_endpoint_that_is_switched_off_matches_nothing() -> None:
    handler = matcher()
    off = EndpointControl(account=ACCOUNT, url="https://a.example", secrets=("s",), enabled=False)
    handler.followers["endpoint"].apply(ACCOUNT, ENDPOINT, encode(off))
    assert handler.handle([record_of(event())], 1).outputs == []


def test_filters_and_conditions_decide() -> None:
    handler = matcher(
        to_plan(filter=Raw(b'{"user":{"id":[7]}}')),
        to_plan(filter=Raw(b'{"user":{"id":[8]}}')),
        to_plan(where="input.user.id == 7 && event.identifier == 'e:custom/x'"),
        to_plan(where="input.user.id == 8"),
        to_plan(where="input.nothing > 1"),
    )
    (fact,) = facts_of(handler.handle([record_of(event())], 1))
    assert [run.subscription[-1] for run in fact.runs] == ["0", "2"]


def test_a_repeat_of_a_unique_key_is_dropped_with_a_fact() -> None:
    handler = matcher()
    first, second = event(uniqueKey="k"), event(uniqueKey="k")
    other = event(uniqueKey="k", orderingKey="o")
    handled = handler.handle([record_of(first, 0), record_of(second, 1), record_of(other, 2)], 1)
    assert [fact.outcome for fact in facts_of(handled)] == ["matched", "duplicate", "matched"]
    assert facts_of(handled)[1].duplicate_of == first.id
    assert len(handled.outputs) == 2
    assert [partition for partition, _, _ in handled.changes] == [3, 3]


def test_the_same_record_is_handled_again_alike() -> None:
    handler = matcher()
    records = [record_of(event(uniqueKey="k"), 0), record_of(event(), 1)]
    assert handler.handle(records, 1) == handler.handle(records, 1)


def test_entries_are_restored_and_forgotten() -> None:
    handler = matcher()
    entries = handler.handle([record_of(event(uniqueKey="k"), 5)], 1).changes
    later = matcher()
    later.restore(3, [(key, value, NOON) for _, key, value in entries] + [(b"damaged", b"", 0)])
    assert facts_of(later.handle([record_of(event(uniqueKey="k"), 5)], 1))[0].outcome == "matched"
    assert facts_of(later.handle([record_of(event(uniqueKey="k"), 6)], 1))[0].outcome == "duplicate"
    later.forget(3)
    assert len(later.unique_keys) == 0


@pytest.mark.parametrize(
    ("hours", "outcome"), [(0, "duplicate"), (11, "duplicate"), (23.9, "duplicate"), (24, "matched"), (49, "matched")]
)
def test_the_window_is_24_hours_on_the_records_time(hours: float, outcome: str) -> None:
    handler = matcher()
    at = NOON + int(hours * 3_600_000)
    posted = parse_post(b'{"eventType":{"provider":"custom","name":"x"},"uniqueKey":"k"}', now_ms=at)
    later = make_event(posted, account=ACCOUNT, now_ms=at)
    handled = handler.handle([record_of(event(uniqueKey="k"), 0), record_of(later, 1, at)], 1)
    assert facts_of(handled)[1].outcome == outcome


def test_one_event_id_is_one_event_though_the_log_took_it_a_day_apart() -> None:
    """Received in one UTC day, so with one id; appended 24 h and a little apart."""
    one = event(uniqueKey="k")
    handled = matcher().handle([record_of(one, 0, NOON), record_of(one, 1, NOON + DAY + 5)], 1)
    assert [fact.outcome for fact in facts_of(handled)] == ["matched", "duplicate"]


def test_a_replay_passes_by_the_window_under_ids_of_its_own() -> None:
    one = event(uniqueKey="k")
    import msgspec

    again = msgspec.structs.replace(one, replay="rpl_1")
    handled = matcher().handle([record_of(one, 0), record_of(again, 1)], 1)
    assert [fact.outcome for fact in facts_of(handled)] == ["matched", "matched"]
    assert len({decode(output.value, Delivery).id for output in handled.outputs}) == 2
    assert len({key for _, key, _ in handled.changes}) == 2, "the replay's own key beside the event's"


def test_an_event_that_came_too_far_is_refused() -> None:
    import msgspec

    far = msgspec.structs.replace(event(), hops=limits.HOPS_MAX + 1)
    handled = matcher().handle([record_of(far)], 1)
    (fact,) = facts_of(handled)
    assert (handled.outputs, fact.outcome) == ([], "refused")
    assert "hops" in (fact.reason or "")


def test_a_subscription_does_not_reach_back() -> None:
    late = SubscriptionControl(
        account=ACCOUNT, pattern="e:*/*", target_kind="plan", target_id=JOB, created_at=NOON + 60_001
    )
    assert matcher(late).handle([record_of(event())], 1).outputs == []
    assert len(matcher(late).handle([record_of(event(), at=NOON + 1)], 1).outputs) == 1


def test_what_was_matched_since_the_last_call_is_tallied() -> None:
    handler = matcher(to_endpoint(), to_plan())
    records = [record_of(event(uniqueKey="k"), 0), record_of(event(uniqueKey="k"), 1), record_of(event(), 2, NOON + 5)]
    handler.handle(records[:1], 1)
    handler.handle(records[1:], 1)
    (output,) = handler.tally()
    assert output.topic == "tallies"
    assert output.key == ACCOUNT.encode()
    assert decode(output.value, Tally) == Tally(account=ACCOUNT, at=NOON + 5, counts=(("e:custom/x", 2, 2, 2),))
    assert handler.tally() == []


def test_an_empty_batch_is_nothing() -> None:
    assert matcher().handle([], 1) == Handled([], [], [])


GOOD = record_of(event())


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (changed(GOOD, value=None), "no value"),
        (changed(GOOD, value=b""), "not a valid Event"),
        (changed(GOOD, value=b"\xff\x00garbage"), "not a valid Event"),
        (changed(GOOD, value=b"[" * 100_000), "not a valid Event"),
        (changed(GOOD, value=b'{"id":1}'), "not a valid Event"),
        (changed(GOOD, value=(GOOD.value or b"").replace(b"evt_", b"evx_")), "its id is none"),
        (changed(GOOD, value=(GOOD.value or b"").replace(b'"id":"evt_0', b'"id":"evt_z')), "is not an id"),
        (changed(GOOD, value=(GOOD.value or b"").replace(b"e:custom/x", b"e:custom x")), "is not an event identifier"),
        (changed(GOOD, value=(GOOD.value or b"").replace(str(NOON).encode(), b"-5")), "not a valid Event"),
        (changed(GOOD, value=(GOOD.value or b"").replace(str(NOON).encode(), b"9" * 18)), "received at no time"),
        (changed(GOOD, value=(GOOD.value or b"").replace(PROPERTIES, b"[1]")), "properties"),
        (changed(GOOD, headers=(("account", b"acc_other"), ("id", b"x"))), "another account"),
    ],
)
def test_garbage_becomes_a_dead_letter_and_the_batch_goes_on(broken: Written, says: str) -> None:
    records: list[Received] = [broken, record_of(event(), 1)]
    handled = matcher().handle(records, 1)
    letter, delivered = handled.outputs
    assert (letter.topic, delivered.topic) == ("dead-letters", "deliveries")
    assert letter.value == broken.value
    assert says in (header(as_received(letter), "dead-reason") or b"").decode()
    outcomes = [fact.outcome for fact in facts_of(handled)]
    known = header(broken, record.ID) != b"x"
    assert outcomes == (["dead_lettered", "matched"] if known else ["matched"])


def test_properties_that_cannot_be_read_are_garbage_only_where_they_are_needed() -> None:
    broken = changed(GOOD, value=(GOOD.value or b"").replace(PROPERTIES, b'{"a":\xff}'), headers=GOOD.headers)
    handled = matcher(to_endpoint(filter=Raw(b'{"a":[1]}'))).handle([broken], 1)
    assert [output.topic for output in handled.outputs] == ["dead-letters"]
    assert [fact.outcome for fact in facts_of(handled)] == ["dead_lettered"]


def test_what_nests_without_end_is_garbage() -> None:
    nested = b'{"a":' + b"[" * 1_000 + b"1" + b"]" * 1_000 + b"}"
    broken = changed(GOOD, value=(GOOD.value or b"").replace(PROPERTIES, nested))
    handled = matcher(*[to_endpoint(filter=Raw(b'{"a":[%d]}' % n)) for n in range(12)]).handle([broken], 1)
    assert [output.topic for output in handled.outputs] == ["dead-letters"]


def test_headers_may_be_missing_or_wrong() -> None:
    for headers in ((), (("p", b"5"),), (("p", b"x"),), (("p", b"9" * 40),), (("p", None), ("account", None))):
        handled = matcher().handle([changed(GOOD, headers=headers)], 1)
        (output,) = handled.outputs
        assert PROPERTIES in (output.value or b"")


def test_a_record_that_the_processor_parks_has_its_outcome_too() -> None:
    """The handler did not foresee why: without the fact the event would be unaccounted for ever."""
    (output,) = parked(record_of(event()), "a bug")
    fact = decode(output.value, EventFact)
    assert (fact.outcome, fact.reason, output.topic) == ("dead_lettered", "a bug", "event-facts")
    assert header(as_received(output), record.SOURCE) is not None
    assert parked(changed(GOOD, headers=()), "a bug") == []


def test_what_would_be_too_large_is_a_dead_letter() -> None:
    handler = matcher(to_plan())
    huge = Raw(b'{"x":"' + b"x" * limits.RECORD_VALUE_BYTES_MAX + b'"}')
    handler.followers["plan"].apply(ACCOUNT, JOB, encode(PlanControl(account=ACCOUNT, plan=huge)))
    handled = handler.handle([record_of(event())], 1)
    assert [output.topic for output in handled.outputs] == ["dead-letters"]


def test_another_accounts_subscription_hears_nothing() -> None:
    handler = matcher()
    handler.followers["subscription"].apply("acc_2", SUB, encode(to_endpoint()))
    handler.followers["endpoint"].apply("acc_2", ENDPOINT, None)
    assert len(handler.handle([record_of(event())], 1).outputs) == 1


def test_all_who_hear_an_event_are_started_in_the_order_of_their_priority() -> None:
    """Runs and deliveries are written in this order; none waits for another's end."""
    handler = matcher(
        to_endpoint(priority=400), to_plan(priority=300), to_plan(priority=100), to_plan("e:custom/*", priority=200)
    )
    handled = handler.handle([record_of(event())], 1)
    by = [
        decode(one.value, Delivery).subscription
        if one.topic == "deliveries"
        else decode(one.value, StartRun).subscription
        for one in handled.outputs
    ]
    assert by == [f"{SUB[:-1]}{n}" for n in (2, 3, 1, 0)]


def test_an_endpoint_with_names_is_told_them_and_others_the_identifier() -> None:
    handler = matcher(to_endpoint("e:ops/*"))
    named = EndpointControl(account=ACCOUNT, url="https://b.example", secrets=("s",), names=("invoice.paid",))
    handler.followers["endpoint"].apply(ACCOUNT, "we_named", encode(named))
    leading = SubscriptionControl(
        account=ACCOUNT, pattern="e:ops/*", target_kind="endpoint", target_id="we_named", created_at=0
    )
    handler.followers["subscription"].apply(ACCOUNT, "sub_named", encode(leading))
    one = event(eventType={"provider": "ops", "name": "invoice.paid"})
    sent = [decode(output.value, Delivery) for output in handler.handle([record_of(one)], 1).outputs]
    types = {delivery.endpoint: orjson.loads(bytes(delivery.body))["type"] for delivery in sent}
    assert types == {ENDPOINT: "e:ops/invoice.paid", "we_named": "invoice.paid"}
    assert {delivery.type for delivery in sent} == {"e:ops/invoice.paid"}

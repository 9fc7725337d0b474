"""A trial against the matcher itself: what it says of a subscription is what the matcher's facts say with and without.

Not here: where events and outcomes are read from (integration), and a matcher that really ran (e2e).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_api.application.trials import Side, Trial
from millrace_core import ids, limits
from millrace_core.event import to_output
from millrace_core.messages import (
    EndpointControl,
    Event,
    EventFact,
    PlanControl,
    Raw,
    SubscriptionControl,
    decode,
    encode,
)
from millrace_core.record import Written
from millrace_matcher.handlers import MatcherHandler
from tests.property.test_core_matching import NAMES, PROVIDERS, data, name, patterns, provider

ACCOUNT = "acc_1"
MIDNIGHT = 20_000 * ids.DAY_MS
TRIED = f"sub_{99:032x}"
PLAN, ENDPOINT, OTHER = f"job_{1:032x}", f"we_{1:032x}", f"we_{2:032x}"
EVENTS_MAX = limits.BACKTEST_SAMPLES_MAX  # so that the samples are all there are

control = st.builds(
    lambda p, n, filter, priority, target, enabled: SubscriptionControl(
        account=ACCOUNT,
        pattern=f"e:{p}/{n}",
        target_kind="plan" if target == PLAN else "endpoint",
        target_id=target,
        created_at=0,
        priority=priority,
        enabled=enabled,
        filter=Raw(b"null" if filter is None else orjson.dumps(filter)),
    ),
    provider,
    name,
    st.one_of(st.none(), patterns),
    st.integers(1, 3),
    st.sampled_from([PLAN, ENDPOINT, ENDPOINT, OTHER]),
    st.sampled_from([True, True, True, False]),
)
post = st.tuples(
    st.sampled_from(["a", "a", *PROVIDERS]),
    st.sampled_from(["x", "x", *NAMES]),
    data,
    # A refused event claims no key: a repeat of it would be heard, of which its row, and so a backtest, says nothing.
    st.sampled_from([(None, 0), (None, limits.HOPS_MAX + 1), ("k", 0), ("k", 0), ("l", 0)]),
)


def event_of(n: int, posted: tuple[Any, ...]) -> Event:
    """The n-th event: they come around midnight, so that repeats of a key are of one id or of two."""
    p, name_, properties, (unique_key, hops) = posted
    at, identifier = MIDNIGHT + (n - EVENTS_MAX // 2) * 1_000, f"e:{p}/{name_}"
    id = ids.derived_id(ids.EVENT, at, str(n))
    if unique_key is not None:
        id = ids.event_id_of_unique_key(ACCOUNT, identifier, "", unique_key, at)
    return Event(
        id=id,
        account=ACCOUNT,
        identifier=identifier,
        received_at=at,
        unique_key=unique_key,
        hops=hops,
        properties=Raw(orjson.dumps(properties)),
    )


def facts(events: list[Event], controls: Mapping[str, SubscriptionControl]) -> list[EventFact]:
    """What the matcher says of these records, one each."""
    handler = MatcherHandler()
    follow = handler.followers
    follow["plan"].apply(ACCOUNT, PLAN, encode(PlanControl(account=ACCOUNT, plan=Raw(b'{"id":"x"}'))))
    for endpoint in (ENDPOINT, OTHER):
        value = encode(EndpointControl(account=ACCOUNT, url="https://a.example", secrets=("s",)))
        follow["endpoint"].apply(ACCOUNT, endpoint, value)
    for id, one in controls.items():
        follow["subscription"].apply(ACCOUNT, id, encode(one))
    outputs = [to_output(event) for event in events]
    records = [
        Written("millrace.events.v1", 0, n, event.received_at, output.key, output.value, output.headers)
        for n, (event, output) in enumerate(zip(events, outputs, strict=True))
    ]
    return [decode(fact.value, EventFact) for fact in handler.handle(records, 1).facts]


def children(found: Iterable[EventFact]) -> set[tuple[str, str]]:
    """Every run and delivery, with its event."""
    every = list(found)
    runs = {(run.id, fact.event) for fact in every for run in fact.runs}
    return runs | {(delivery.id, fact.event) for fact in every for delivery in fact.deliveries}


def company(tried: SubscriptionControl, others: Mapping[str, SubscriptionControl]) -> dict[str, SubscriptionControl]:
    """It, and the others that lead to its endpoint."""
    if tried.target_kind == "plan":
        return {TRIED: tried}
    return {TRIED: tried} | {id: one for id, one in others.items() if one.target_id == tried.target_id}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(control, max_size=6),
    st.one_of(st.none(), control),
    control,
    st.lists(post, min_size=1, max_size=EVENTS_MAX),
)
def test_a_trial_says_what_the_matcher_would_have_done(
    others: list[SubscriptionControl],
    before: SubscriptionControl | None,
    now: SubscriptionControl,
    posts: list[tuple[Any, ...]],
) -> None:
    held = {f"sub_{n:032x}": one for n, one in enumerate(others)}
    events = [event_of(n, each) for n, each in enumerate(posts)]
    without = facts(events, held)
    rows: dict[str, Event] = {}
    outcomes: dict[str, str] = {}
    for event, fact in zip(events, without, strict=True):
        rows.setdefault(event.id, event)
        outcomes.setdefault(event.id, fact.outcome)

    trial = Trial(
        Side(TRIED, company(now, held)), before=None if before is None else Side(TRIED, company(before, held))
    )
    for event in rows.values():
        fit = trial.fit(event)
        if fit is not None:
            trial.count(fit, outcomes[event.id])

    for tally, version in ((trial.now, now), (trial.before, before)):
        if version is None:
            continue
        alone = children(facts(events, {TRIED: version}))
        assert tally.matched == len(alone), "what it hears"
        started = children(facts(events, {**held, TRIED: version})) - children(without)
        assert tally.started == len(started), "what would not be there without it"
        assert tally.bytes == sum(len(bytes(rows[event].properties)) for _, event in started)
        assert sum(tally.by_minute.values()) == len(started)
    hears_now = {event for _, event in children(facts(events, {TRIED: now}))}
    heard = set() if before is None else {event for _, event in children(facts(events, {TRIED: before}))}
    assert set(trial.both.samples) == heard & hears_now
    assert set(trial.before_only.samples) == heard - hears_now
    assert set(trial.now_only.samples) == hears_now - heard
    assert (trial.undecided, trial.unreadable) == (0, 0)

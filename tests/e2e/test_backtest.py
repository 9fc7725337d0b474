"""Backtests on a whole Millrace: what they say of subscriptions that were in force is what the facts say."""

import random
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from millrace_core import limits
from millrace_core.clock import SystemClock
from tests.e2e.conftest import Millrace
from tests.support.user import User, written
from tests.support.waiting import eventually

EVENTS = 60
NAMES = ("order-made", "order-paid", "ticket")
TERMS: tuple[dict[str, Any], ...] = (
    {"pattern": "e:past/order-*", "filter": {"total": [{"numeric": [">", 50]}]}},
    {"pattern": "e:past/ticket"},
    {"pattern": "e:past/*", "where": "input.total % 7 == 0", "priority": 1},
    {"pattern": "e:past/order-paid", "filter": {"who": ["ann", {"prefix": "b"}]}},
    {"pattern": "e:past/*", "filter": {"who": [{"exists": False}]}, "enabled": False},
)


async def test_what_was_matched_is_what_a_backtest_says(millrace: Millrace) -> None:
    user = millrace.user
    asked = {"since": datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC).isoformat()}
    plan = await _job(user)
    shared = await _webhook(millrace, "/past/shared")
    subscriptions = {}
    for terms in TERMS:
        for target in (plan, shared):
            made = await user.make("/v1/subscriptions", {**terms, "target": target})
            subscriptions[made["id"]] = target["type"]

    dice = random.Random(7)
    posted = []
    for n in range(EVENTS):
        properties = {"total": dice.randrange(100)} | ({"who": dice.choice(["ann", "bob", "cid"])} if n % 3 else {})
        posted.append(written(f"e:past/{dice.choice(NAMES)}", properties, uniqueKey=f"past-{n % 50}"))
    events = sorted(set(await user.publish_batch(posted)))
    assert len(events) < EVENTS, "some were posted twice"
    runs: defaultdict[str, set[str]] = defaultdict(set)
    delivered: set[str] = set()
    for event in events:
        for match in (await user.decided(event))["matches"]:
            if match["type"] == "run":
                runs[match["subscription"]].add(event)
            else:
                delivered.add(event)

    heard: set[str] = set()
    for id, kind in subscriptions.items():
        found = await _tried(user, {"subscription": id, **asked})
        assert (found["undecided"], found["not_counted"], found["before"]) == (0, {}, found["now"])
        assert found["both"]["events"] == found["now"]["matched"]
        if kind == "job":
            assert found["now"]["runs"] == found["now"]["steps"] == len(runs[id])
            _agree(found["both"], runs[id])
        else:
            heard |= set(found["both"]["samples"])
            without = await _tried(user, {"subscription": id, "changes": {"enabled": False}, **asked})
            assert without["before_only"] == found["both"]
            assert found["now"]["deliveries"] + found["now"]["anyway"] == found["now"]["matched"]
    assert heard <= delivered
    everything = await _tried(user, {"pattern": "e:past/*", "target": shared, **asked})
    assert (everything["now"]["matched"], everything["now"]["anyway"]) == (len(events), len(delivered))
    assert everything["now"]["deliveries"] == len(events) - len(delivered)
    assert sum(len(each) for each in runs.values()) > 20, "the facts say something"
    for theirs in ({"subscription": min(subscriptions)}, {"pattern": "e:past/*", "target": shared}):
        assert (await millrace.stranger.ask("POST", "/v1/subscriptions/backtest", theirs)).status == 400


async def test_a_subscription_made_as_it_was_tried_does_what_was_said(millrace: Millrace) -> None:
    user, sink, path = millrace.user, millrace.sink, "/past/made"
    target = await _webhook(millrace, path)
    past = [written("e:tried/x", {"n": n}) for n in range(8)]
    for event in await user.publish_batch(past):
        await user.decided(event)
    wanted = {"pattern": "e:tried/*", "filter": {"n": [{"numeric": [">=", 3]}]}, "target": target}
    found = await _tried(user, {**wanted, "days": 1})
    assert (found["now"]["matched"], found["now"]["deliveries"]) == (5, 5)
    assert sink.events_at(path) == [], "nothing was sent"
    heard = (await user.make("/v1/subscriptions", wanted))["id"]
    replay = {"since": "2020-01-01T00:00:00Z", "pattern": "e:tried/*", "subscription": heard}
    await user.make("/v1/events/replay", replay)
    await eventually(lambda: len(sink.events_at(path)) == 5, timeout_s=30)
    assert sorted(sink.events_at(path)) == sorted(found["now_only"]["samples"])


def _agree(found: dict[str, Any], facts: set[str]) -> None:
    """As many as the facts name, and the samples among them."""
    assert found["events"] == len(facts)
    assert len(set(found["samples"]) & facts) == min(len(facts), limits.BACKTEST_SAMPLES_MAX)


async def _tried(user: User, asked: dict[str, Any]) -> Any:
    found = await user.make("/v1/subscriptions/backtest", asked)
    assert found["complete"]
    return found


async def _webhook(millrace: Millrace, path: str) -> dict[str, Any]:
    made = await millrace.user.make("/v1/webhooks", {"url": millrace.sink.url + path})
    millrace.sink.secrets[path] = made["secret"]
    return {"type": "webhook", "id": made["id"]}


async def _job(user: User) -> dict[str, Any]:
    step = {"type": "transform", "config": {"value": 1}}
    return {"type": "job", "id": (await user.make("/v1/jobs", {"name": "past", "step": step}))["id"]}

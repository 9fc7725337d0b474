"""Replays on a whole Millrace: a new subscription gets the past once, whoever dies while it does."""

import asyncio
from collections import Counter
from typing import Any

from tests.e2e.conftest import Millrace
from tests.support.user import written
from tests.support.waiting import eventually

PAST, PER_S = 120, 40
IDENTIFIER = "e:again/told"


async def test_a_new_subscription_hears_the_past_once_while_events_flow_and_the_api_dies(millrace: Millrace) -> None:
    user, sink, path = millrace.user, millrace.sink, "/again/told"
    past = await user.publish_batch([written(IDENTIFIER, {"n": n}, uniqueKey=f"again-{n}") for n in range(PAST)])
    for event in past:
        await user.decided(event)
    until = (await user.publish_batch([written("e:again/now", {})]))[0]
    moment = (await user.decided(until))["received_at"]
    made = await user.make("/v1/webhooks", {"url": sink.url + path, "events": [IDENTIFIER]})
    sink.secrets[path] = made["secret"]
    (heard,) = await user.get(f"/v1/subscriptions?target={made['id']}")
    choice = {
        "since": "2020-01-01T00:00:00Z",
        "until": moment,
        "pattern": "e:again/*",
        "where": "input.n >= 0",
        "subscription": heard["id"],
        "per_s": PER_S,
    }
    counted = await user.make("/v1/events/replay", {**choice, "dry_run": True})
    assert (counted["events"], counted["complete"]) == (PAST, True)

    live: list[str] = []
    over = asyncio.Event()

    async def flow() -> None:
        while not over.is_set():
            live.append(await user.publish(IDENTIFIER, {"n": -1}))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(flow())
        replay = (await user.make("/v1/events/replay", choice))["id"]
        await eventually(lambda: _has_written(millrace, replay), timeout_s=30)
        millrace.platform.kill("api")
        millrace.platform.start("api")
        await millrace.platform.ready(["api"])
        done = await eventually(lambda: _completed(millrace, replay), timeout_s=60)
        over.set()
    assert done["written"] == PAST
    await eventually(lambda: len(sink.events_at(path)) >= PAST + len(live), timeout_s=60)
    for event in (past[0], past[-1], live[-1]):
        (match,) = await _matches(millrace, event)
        await user.ended(f"/v1/deliveries/{match['id']}", "succeeded")
    shown = await user.get(f"/v1/events/{past[0]}")
    assert (shown["outcome"], shown["replay"], shown["repeats"]) == ("unmatched", None, 0), "it is the event it was"
    assert Counter(sink.events_at(path)) == dict.fromkeys([*past, *live], 1)
    assert sink.forged == 0
    said = await asyncio.to_thread(millrace.platform.tool, "verify")
    assert {"duplicates 0", "read models agree with the log", "unaccounted 0"} <= set(said.stdout.splitlines())


async def _has_written(millrace: Millrace, replay: str) -> bool:
    found = await millrace.user.get(f"/v1/replays/{replay}")
    return bool(0 < found["written"] < PAST)


async def _matches(millrace: Millrace, event: str) -> Any:
    """What the event matched, once it is in the read models: a past event has had its first outcome long before."""

    async def look() -> Any:
        return (await millrace.user.get(f"/v1/events/{event}"))["matches"]

    return await eventually(look, timeout_s=20)


async def _completed(millrace: Millrace, replay: str) -> Any:
    found = await millrace.user.get(f"/v1/replays/{replay}")
    return found if found["state"] == "completed" else None

"""What a webhook endpoint asks of us and gets: no more a second than it wants, and nothing once it is gone."""

from typing import Any

from tests.e2e.conftest import Millrace
from tests.support.user import User, written
from tests.support.waiting import eventually

RATE = 5.0
COUNT = 15


async def webhook(user: User, url: str, *events: str, **more: object) -> str:
    return str((await user.make("/v1/webhooks", {"url": url, "events": list(events), **more}))["id"])


async def test_an_endpoint_is_called_no_more_often_than_it_wants_and_its_traces_say_so(millrace: Millrace) -> None:
    user, path = millrace.user, "/endpoints/rate"
    endpoint = await webhook(user, millrace.sink.url + path, "e:endpoints/rate", rate=RATE)
    events = await user.publish_batch([written("e:endpoints/rate", {"n": n}) for n in range(COUNT)])

    async def waits_for_its_rate() -> Any:
        waits = [wait for event in events for wait in (await user.get(f"/v1/events/{event}/trace"))["waits"]]
        return next((wait for wait in waits if wait["kind"] == "endpoint_rate"), None)

    wait = await eventually(waits_for_its_rate, every_s=0.0)
    assert wait["text"].startswith(f"waiting for the endpoint's rate: {endpoint} takes 5 a second, ")
    await eventually(lambda: sorted(millrace.sink.events_at(path)) == sorted(events), timeout_s=20.0)
    at = []
    for event in events:
        (match,) = (await user.decided(event))["matches"]
        (attempt,) = (await user.ended(f"/v1/deliveries/{match['id']}", "succeeded"))["attempts"]
        assert attempt["n"] == 1, "waiting is no attempt"
        at.append(attempt["at"])
    assert len(set(at)) == COUNT


async def test_an_endpoint_that_is_gone_is_disabled_and_who_names_the_event_hears_it_once(millrace: Millrace) -> None:
    user, sink = millrace.user, millrace.sink
    gone = await webhook(user, sink.url + "/endpoints/gone", "e:endpoints/gone")
    await webhook(user, sink.url + "/endpoints/ops", "e:millrace/endpoint.disabled")
    await webhook(user, sink.url + "/endpoints/open", "e:mill*/*")
    sink.gone.add("/endpoints/gone")
    await user.publish("e:endpoints/gone", {"n": 1})

    async def is_disabled() -> bool:
        found = await user.get(f"/v1/webhooks/{gone}")
        assert (found["enabled"], found["disabled_reason"]) == (False, "gone"), found
        return True

    await eventually(is_disabled, timeout_s=20.0, every_s=0.1)
    await eventually(lambda: sink.arrived["/endpoints/ops"], timeout_s=20.0)
    (told,) = sink.arrived["/endpoints/ops"]
    assert told.body["type"] == "e:millrace/endpoint.disabled"
    assert (told.body["data"]["endpoint"], told.body["data"]["reason"]) == (gone, "gone")
    missed = await user.publish("e:endpoints/gone", {"n": 2})
    assert (await user.decided(missed))["outcome"] == "unmatched"

    sink.gone.clear()
    await user.change(f"/v1/webhooks/{gone}", {"enabled": True})
    again = await user.publish("e:endpoints/gone", {"n": 3})
    await eventually(lambda: again in sink.events_at("/endpoints/gone"), timeout_s=20.0)
    assert len(sink.arrived["/endpoints/ops"]) == 1
    assert not sink.arrived["/endpoints/open"], "the platform's own events must be named"

"""CloudEvents 1.0 over HTTP: how they become events, in all three modes, through the routes."""

import base64
from typing import Any

import msgspec
import orjson
import pytest

from millrace_core import messages
from millrace_core.errors import Reject
from millrace_gateway import cloudevents
from tests.support.ingesting import BATCH, NOW_MS, PUBLISH, Ingesting

TIME = "2026-05-28T20:00:00Z"


def cloud_event(**changes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "i-1", "source": "/shop", "type": "order.shipped"} | changes


@pytest.fixture
def ingesting() -> Ingesting:
    return Ingesting()


def stored(ingesting: Ingesting) -> messages.Event:
    return messages.decode(ingesting.log.all()[-1].value, messages.Event)


async def test_structured_mode(ingesting: Ingesting) -> None:
    body = orjson.dumps(cloud_event(time=TIME, subject="7", traced=True, n=5))[:-1] + b',"data": {"a":1e2}}'
    answer = await ingesting.post(PUBLISH, body, content_type="application/cloudevents+json; charset=utf-8")
    assert answer.status == 202
    event = stored(ingesting)
    assert event.identifier == answer.json["identifier"] == "e:cloudevents/order.shipped"
    assert bytes(event.properties) == b'{"a":1e2}'
    assert event.unique_key == "/shop i-1"
    assert event.timestamp == "2026-05-28T20:00:00.000Z"
    assert event.extensions == {
        "id": "i-1",
        "source": "/shop",
        "type": "order.shipped",
        "subject": "7",
        "traced": "true",
        "n": "5",
    }


async def test_binary_mode(ingesting: Ingesting) -> None:
    answer = await ingesting.post(
        PUBLISH,
        b' {"a": 1} ',
        ce_specversion="1.0",
        ce_id="i%201",
        ce_source="/sh%C3%B6p",
        ce_type="e:shop/order",
        ce_partitionkey="p",
        ce_comment='"quoted \\"text\\""',
    )
    assert answer.status == 202
    event = stored(ingesting)
    assert event.identifier == "e:shop/order"
    assert bytes(event.properties) == b'{"a": 1}'
    assert event.unique_key == "/shöp i 1"
    assert event.ordering_key == "p"
    assert event.extensions is not None
    assert event.extensions["comment"] == 'quoted "text"'
    assert event.extensions["datacontenttype"] == "application/json"


@pytest.mark.parametrize("path", [PUBLISH, BATCH])
async def test_batch_mode_is_answered_like_a_batch(ingesting: Ingesting, path: str) -> None:
    events = [cloud_event(), cloud_event(id=""), cloud_event(id="i-2")]
    answer = await ingesting.post(path, events, content_type="application/cloudevents-batch+json")
    assert answer.status == 200
    assert (answer.json["accepted"], answer.json["refused"]) == (2, 1)
    assert "`id`" in answer.json["results"][1]["message"]


async def test_a_repeat_is_the_same_event(ingesting: Ingesting) -> None:
    kind = "application/cloudevents+json"
    first = await ingesting.post(PUBLISH, cloud_event(), content_type=kind)
    again = await ingesting.post(PUBLISH, cloud_event(), content_type=kind)
    other = await ingesting.post(PUBLISH, cloud_event(source="/other"), content_type=kind)
    assert first.json["eventId"] == again.json["eventId"] != other.json["eventId"]


def structured(**changes: Any) -> tuple[str, bytes]:
    posted = cloudevents.from_structured(orjson.dumps(cloud_event(**changes)), now_ms=NOW_MS)
    return posted.identifier, bytes(posted.properties)


def test_the_provider_is_an_extension_or_part_of_the_type() -> None:
    assert structured()[0] == "e:cloudevents/order.shipped"
    assert structured(provider="shop")[0] == "e:shop/order.shipped"
    assert structured(type="e:github/push", provider="shop")[0] == "e:github/push"


@pytest.mark.parametrize(
    ("members", "properties"),
    [
        ({}, b"{}"),
        ({"data": None}, b"{}"),
        ({"data": {"a": 1}}, b'{"a":1}'),
        ({"data": [1, 2]}, b'{"data":[1,2]}'),
        ({"data": "text"}, b'{"data":"text"}'),
        ({"data": "<a/>", "datacontenttype": "application/xml"}, b'{"data":"<a/>"}'),
        ({"data_base64": "AAE="}, b'{"data_base64":"AAE="}'),
        (
            {"data_base64": base64.b64encode(b'{"a":1}').decode(), "datacontenttype": "application/json"},
            b'{"a":1}',
        ),
    ],
)
def test_any_data_finds_a_place(members: dict[str, Any], properties: bytes) -> None:
    assert structured(**members)[1] == properties


@pytest.mark.parametrize(
    ("content_type", "body", "properties"),
    [
        ("application/json", b"", b"{}"),
        ("application/json", b"null", b"{}"),
        ("application/json", b"[1]", b'{"data":[1]}'),
        ("text/plain", b"text", b'{"data":"text"}'),
        ("application/xml", b"<a/>", b'{"data":"<a/>"}'),
        ("text/plain", b"\xff", b'{"data_base64":"/w=="}'),
        ("image/png", b"\x00\x01", b'{"data_base64":"AAE="}'),
    ],
)
def test_any_body_of_binary_mode_finds_a_place(content_type: str, body: bytes, properties: bytes) -> None:
    headers = {
        b"ce-specversion": b"1.0",
        b"ce-id": b"i",
        b"ce-source": b"/s",
        b"ce-type": b"t",
        b"content-type": content_type.encode(),
    }
    assert bytes(cloudevents.from_binary(headers, body, now_ms=NOW_MS).properties) == properties


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": None}, "specversion"),
        ({"id": ""}, "`id`"),
        ({"source": None}, "`source`"),
        ({"type": ""}, "`type`"),
        ({"type": "a/b"}, "`type`"),
        ({"type": "e:nothing"}, "`type`"),
        ({"id": 5.5}, "`id`"),
        ({"Upper": "x"}, "lower-case"),
        ({"ext": {"a": 1}}, "`ext`"),
        ({"ext": "x" * 5_000}, "`ext`"),
        ({f"e{n}": "x" for n in range(70)}, "attributes"),
        ({"time": "noon"}, "timestamp"),
        ({"partitionkey": "x" * 300}, "partitionkey"),
        ({"data": 1, "data_base64": "AAE="}, "not both"),
        ({"data_base64": "%"}, "base64"),
        ({"data_base64": 5}, "base64"),
    ],
)
def test_what_is_no_cloud_event_says_why(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Reject, match=says):
        cloudevents.from_structured(orjson.dumps(cloud_event(**changes)), now_ms=NOW_MS)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"5", b'{"a":' * 10_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Reject):
        cloudevents.from_structured(body, now_ms=NOW_MS)


def test_long_sources_and_ids_still_make_a_unique_key() -> None:
    def key(**changes: str) -> str | None:
        return cloudevents.from_structured(orjson.dumps(cloud_event(**changes)), now_ms=NOW_MS).unique_key

    long = key(id="x" * 300)
    assert long is not None
    assert long.startswith("sha256:")
    assert long != key(id="x" * 301)


def test_a_damaged_header_is_refused() -> None:
    headers = {b"ce-specversion": b"1.0", b"ce-id": b"%ff", b"ce-source": b"/s", b"ce-type": b"t"}
    with pytest.raises(Reject, match="ce-id"):
        cloudevents.from_binary(headers, b"", now_ms=NOW_MS)


def test_a_structured_event_keeps_the_bytes_of_its_data() -> None:
    body = b'{"specversion":"1.0","id":"i","source":"/s","type":"t","data":{"a" :1.10,"b":12345678901234567890}}'
    posted = cloudevents.from_structured(body, now_ms=NOW_MS)
    assert posted.properties == msgspec.Raw(b'{"a" :1.10,"b":12345678901234567890}')

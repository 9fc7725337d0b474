"""Our CloudEvents codec against the official package: whatever that one writes, we read as it meant it."""

import json
from datetime import UTC, datetime
from typing import Any

from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core.event import Posted
from millrace_gateway import cloudevents

NOW_MS = 1_780_000_000_000
_PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x2FFF, exclude_categories=("Cs", "Cc", "Cn"))
text = st.text(_PRINTABLE, min_size=1, max_size=40)
names = st.from_regex(r"[a-z][a-z0-9]{1,15}", fullmatch=True).filter(
    lambda n: (
        n not in {"id", "source", "type", "specversion", "time", "subject", "datacontenttype", "dataschema"}
        and n not in {"data", "partitionkey", "provider"}
    )
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(_PRINTABLE, max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(_PRINTABLE, max_size=5), inner, max_size=3),
    max_leaves=10,
)
# In binary mode the official package writes anything but an object as Python's text of it, not as JSON.
json_documents = st.none() | st.dictionaries(st.text(_PRINTABLE, max_size=5), json_values, max_size=3)
attributes = st.fixed_dictionaries(
    {
        "id": text,
        "source": text,
        "type": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,40}", fullmatch=True).filter(lambda t: t[:2] != "e:"),
        "time": st.datetimes(datetime(1980, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        "datacontenttype": st.just("application/json"),
    },
    optional={"subject": text, "partitionkey": text},
)


def as_meant(event: CloudEvent, data: Any, posted: Posted) -> None:
    """The official event and ours say the same."""
    given_attributes = event.get_attributes()
    assert posted.identifier == f"e:cloudevents/{event.get_type()}"
    assert posted.unique_key == f"{event.get_source()} {event.get_id()}"
    assert posted.timestamp is not None
    assert datetime.fromisoformat(posted.timestamp) == event.get_time()
    assert posted.ordering_key == given_attributes.get("partitionkey")
    assert posted.extensions is not None
    for name, value in given_attributes.items():
        if name not in {"specversion", "time", "partitionkey"}:
            assert posted.extensions[name] == value
    expected = {} if data is None else data if isinstance(data, dict) else {"data": data}
    assert json.loads(bytes(posted.properties)) == expected


@settings(max_examples=60, deadline=None)
@given(attributes, st.dictionaries(names, text, max_size=3), json_values)
def test_structured_mode(known: dict[str, Any], extensions: dict[str, str], data: Any) -> None:
    event = CloudEvent(attributes=extensions | known, data=data)
    message = http.to_structured_event(event)
    as_meant(event, data, cloudevents.from_structured(message.body, now_ms=NOW_MS))


@settings(max_examples=60, deadline=None)
@given(attributes, st.dictionaries(names, text, max_size=3), json_documents)
def test_binary_mode(known: dict[str, Any], extensions: dict[str, str], data: Any) -> None:
    event = CloudEvent(attributes=extensions | known, data=data)
    message = http.to_binary_event(event)
    headers = {name.lower().encode(): value.encode("latin-1") for name, value in message.headers.items()}
    as_meant(event, data, cloudevents.from_binary(headers, message.body, now_ms=NOW_MS))

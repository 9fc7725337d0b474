"""From a posted body to an event, and from an event to its record on `events`: the first step of a message's life.

`properties` keep their bytes: the envelope is parsed once, they are only looked through (`orjson` refuses what the
parser of the envelope does not look at: bad UTF-8, lone surrogates, numbers without bound). Every refusal says what
was wrong, where, and what to do. Members that are not known are ignored: a producer may send more than we read; an
optional member that is null counts as left out.
Not here: HTTP, limits on the body's size, who may post.
"""

import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from millrace_core import ids, limits
from millrace_core.errors import Reject
from millrace_core.identifiers import identifier_of
from millrace_core.messages import Event, Raw, encode_with_payload
from millrace_core.record import ACCOUNT, ID, ORDERING_KEY, PAYLOAD, SURFACE, TRACEPARENT, UNIQUE_KEY, Output

TOPIC = "events"
OPS_PROVIDER = "ops"
NO_PROPERTIES = Raw(b"{}")
_BRACE, _N = b"{n"


class _EventType(msgspec.Struct, frozen=True, gc=False):
    provider: str
    name: str


class _Body(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    event_type: _EventType
    properties: Raw = Raw(b"null")
    timestamp: str | None = None
    unique_key: str | None = None
    ordering_key: str | None = None


class _Fired(msgspec.Struct, frozen=True, gc=False):
    event: str
    payload: Raw = Raw(b"null")


class Posted(msgspec.Struct, frozen=True, gc=False):
    """A posted event that may become one: everything in it has been checked."""

    identifier: str
    properties: Raw
    timestamp: str | None = None
    unique_key: str | None = None
    ordering_key: str | None = None
    extensions: dict[str, str] | None = None


_DATE = r"(?:\d{4}-\d{2}-\d{2}|\d{8})"
_TIME = r"\d{2}(?::?\d{2}(?::?\d{2}(?:[.,]\d{1,9})?)?)?"
_ISO_8601 = re.compile(rf"{_DATE}(?:[T ]{_TIME}(?:Z|[+-]\d{{2}}(?::?\d{{2}})?)?)?", re.ASCII)
_UNREADABLE = (orjson.JSONDecodeError, msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_bodies = msgspec.json.Decoder(list[_Body]).decode
_decode_fired = msgspec.json.Decoder(_Fired).decode


def parse_post(body: bytes, *, now_ms: int) -> Posted:
    """What a producer posted, checked. Raises Reject with a message for the producer."""
    try:
        loaded = orjson.loads(body)
        posted = _decode_body(body)
        identifier = identifier_of(posted.event_type.provider, posted.event_type.name)
    except (*_UNREADABLE, Reject) as error:
        raise _explained(body, error) from None
    return _checked(posted, identifier, loaded, now_ms)


def parse_posts(body: bytes, *, now_ms: int) -> list[Posted] | None:
    """The items of a JSON array, each checked as `parse_post` does, for less than they cost one by one. None unless
    every one of them is right: parse them one by one then, to learn which is not. It is one step of the loop, so the
    body must be short."""
    try:
        loaded = orjson.loads(body)
        return [
            _checked(posted, identifier_of(posted.event_type.provider, posted.event_type.name), members, now_ms)
            for posted, members in zip(_decode_bodies(body), loaded, strict=True)
        ]
    except (*_UNREADABLE, Reject):
        return None


def _checked(posted: _Body, identifier: str, loaded: dict[str, Any], now_ms: int) -> Posted:
    properties, timestamp = posted.properties, posted.timestamp
    raw = bytes(properties)
    if may_be_deep(raw):
        check_depth(loaded.get("properties"))
    first = raw[0]
    if first == _N:
        properties = NO_PROPERTIES
    elif first != _BRACE:
        raise Reject(f"`properties` must be an object, not {_kind(loaded['properties'])}: wrap it, or leave it out")
    unique_key, ordering_key = posted.unique_key, posted.ordering_key
    if timestamp is not None:
        timestamp = parse_timestamp(timestamp, now_ms=now_ms)
    if unique_key is not None:
        check_key(unique_key, "uniqueKey", limits.UNIQUE_KEY_CHARS_MAX)
    if ordering_key is not None:
        check_key(ordering_key, "orderingKey", limits.ORDERING_KEY_CHARS_MAX)
    return Posted(identifier, properties, timestamp, unique_key, ordering_key)


def parse_fired(body: bytes) -> Posted:
    """What `/v1/events/fire` takes, `{event, payload}`, as an event of the provider `ops`; checked as `parse_post`
    checks. Raises Reject with a message for the sender."""
    try:
        loaded = orjson.loads(body)
        fired = _decode_fired(body)
    except _UNREADABLE as error:
        raise _why_not_fired(body, error) from None
    identifier = identifier_of(OPS_PROVIDER, fired.event)
    if may_be_deep(body):
        check_depth(loaded.get("payload"))
    first = bytes(fired.payload)[0]
    if first not in (_N, _BRACE):
        raise Reject(f"`payload` must be an object, not {_kind(loaded['payload'])}: wrap it, or leave it out")
    return Posted(identifier, NO_PROPERTIES if first == _N else fired.payload)


def make_event(posted: Posted, *, account: str, now_ms: int, hops: int = 0) -> Event:
    """The event that a post becomes. With a `uniqueKey` its id is the same whenever it is posted on this UTC day."""
    if posted.unique_key is None:
        id = ids.new_id(ids.EVENT)
    else:
        id = ids.event_id_of_unique_key(
            account, posted.identifier, posted.ordering_key or "", posted.unique_key, now_ms
        )
    return Event(
        id=id,
        account=account,
        identifier=posted.identifier,
        received_at=now_ms,
        timestamp=posted.timestamp,
        unique_key=posted.unique_key,
        ordering_key=posted.ordering_key,
        hops=hops,
        extensions=posted.extensions,
        properties=posted.properties,
    )


@lru_cache(maxsize=4_096)
def event_route(account: str, identifier: str, ordering_key: str | None) -> bytes:
    """What an event's partition is computed from: an account's events of one identifier stay in order, and
    `orderingKey` splits a hot one."""
    return f"{account}\x1f{identifier}\x1f{ordering_key or ''}".encode("utf-8", "surrogatepass")


def to_output(event: Event, *, surface: str = "ingest", traceparent: str | None = None) -> Output:
    """The record for the topic `events`."""
    value, start = encode_with_payload(event, event.properties)
    headers: tuple[tuple[str, bytes], ...] = (
        (ACCOUNT, event.account.encode()),
        (ID, event.id.encode()),
        (SURFACE, surface.encode()),
        (PAYLOAD, start),
    )
    if event.unique_key is not None:
        headers += ((UNIQUE_KEY, event.unique_key.encode()),)
    if event.ordering_key is not None:
        headers += ((ORDERING_KEY, event.ordering_key.encode()),)
    if traceparent is not None:
        headers += ((TRACEPARENT, traceparent.encode()),)
    return Output(
        TOPIC,
        event.identifier.encode(),
        value,
        headers,
        event_route(event.account, event.identifier, event.ordering_key),
    )


# ── the rules for single members, for the other ways in (CloudEvents, a plan's `publish` step) ──────────────────────
def checked_properties(value: bytes) -> Raw:
    """JSON bytes that may become an event's properties. Raises Reject."""
    try:
        loaded = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Reject(_not_json(error, "`properties`")) from None
    if not isinstance(loaded, dict):
        raise Reject(f"`properties` must be an object, not {_kind(loaded)}: wrap it, or leave it out")
    if may_be_deep(value):
        check_depth(loaded)
    return Raw(value.strip())


def may_be_deep(value: bytes) -> bool:
    """Whether it is long enough, and opens enough, for objects and arrays to lie too deep in one another."""
    return len(value) > 2 * limits.JSON_DEPTH_MAX and value.count(b"{") + value.count(b"[") > limits.JSON_DEPTH_MAX


def check_depth(loaded: Any) -> None:
    """Raises Reject when objects and arrays lie in one another deeper than the bound."""
    level, depth = [loaded], 0
    while level:
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        depth += 1
        if depth >= limits.JSON_DEPTH_MAX and level:
            raise Reject(_too_deep())


def parse_timestamp(text: str, *, now_ms: int) -> str:
    """The moment in UTC, written `2026-01-31T12:00:00.000Z`. Without a zone it is UTC already. Raises Reject."""
    try:
        # The parser takes any sign between date and time, a digit too: the form is looked at first.
        moment = datetime.fromisoformat(text if _ISO_8601.fullmatch(text) else "")
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Reject(
            f"`timestamp` {_cut(text)} is not ISO 8601: write it like 2026-01-31T12:00:00Z, or leave it out"
        ) from None
    at_ms = moment.timestamp() * 1000
    if at_ms < 0:
        raise Reject(f"`timestamp` {_cut(text)} is before 1970: send the time at which the event happened")
    if at_ms > now_ms + limits.TIMESTAMP_AHEAD_MS_MAX:
        raise Reject(f"`timestamp` {_cut(text)} is more than 24 hours ahead of now: check the clock and the time zone")
    return _written(moment)


def iso_of(at_ms: int) -> str:
    """Milliseconds since 1970 as `2026-01-31T12:00:00.000Z`."""
    seconds, ms = divmod(at_ms, 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def check_key(value: str, name: str, chars_max: int) -> None:
    """Raises Reject unless it is a string of 1 to `chars_max` characters."""
    if not 1 <= len(value) <= chars_max:
        raise Reject(f"`{name}` has {len(value)} characters: use 1 to {chars_max}, or leave it out")


def _written(moment: datetime) -> str:
    spec = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=spec) + "Z"


# ── why a body was refused: looked into only then ───────────────────────────────────────────────────────────────────
_EXAMPLE = 'for example {"eventType": {"provider": "custom", "name": "user-signup"}, "properties": {}}'


def _explained(body: bytes, error: Exception) -> Reject:
    if isinstance(error, Reject):
        return Reject(f"`eventType`: {error}")
    try:
        loaded = orjson.loads(body)
    except orjson.JSONDecodeError as damage:
        return Reject(_not_json(damage, "the body"))
    if not isinstance(loaded, dict):
        return Reject(f"the body must be one JSON object, not {_kind(loaded)}: {_EXAMPLE}")
    event_type = loaded.get("eventType")
    if not isinstance(event_type, dict):
        found = f"must be an object, not {_kind(event_type)}" if "eventType" in loaded else "is missing"
        return Reject(f"`eventType` {found}: {_EXAMPLE}")
    for name in ("provider", "name"):
        if not isinstance(event_type.get(name), str):
            found = f"must be a string, not {_kind(event_type[name])}" if name in event_type else "is missing"
            return Reject(f"`eventType.{name}` {found}: {_EXAMPLE}")
    for name in ("timestamp", "uniqueKey", "orderingKey"):
        if not isinstance(loaded.get(name), (str, type(None))):
            return Reject(f"`{name}` must be a string, not {_kind(loaded[name])}: correct it, or leave it out")
    if isinstance(error, RecursionError):
        return Reject(_too_deep())
    return Reject(f"the body cannot be read: {error}")


def _why_not_fired(body: bytes, error: Exception) -> Reject:
    try:
        loaded = orjson.loads(body)
    except orjson.JSONDecodeError as damage:
        return Reject(_not_json(damage, "the body"))
    if isinstance(error, RecursionError):
        return Reject(_too_deep())
    example = 'for example {"event": "invoice.paid", "payload": {}}'
    if not isinstance(loaded, dict):
        return Reject(f"the body must be one JSON object, not {_kind(loaded)}: {example}")
    found = f"must be a string, not {_kind(loaded['event'])}" if "event" in loaded else "is missing"
    return Reject(f"`event` {found}: {example}")


def _not_json(error: json.JSONDecodeError, what: str) -> str:
    reason = str(error)
    if "depth limit" in reason:
        return _too_deep()
    if "surrogate" in reason and "UTF-8" not in reason:
        return f"{what} holds half of a surrogate pair: send whole characters ({reason})"
    if "UTF-8" in reason and "BOM" not in reason:
        return f"{what} is not valid UTF-8: encode it as UTF-8 and send it again ({reason})"
    return f"{what} is not valid JSON: {reason}. Correct it and send it again"


def _too_deep() -> str:
    return f"objects and arrays lie more than {limits.JSON_DEPTH_MAX} deep in one another: send flatter `properties`"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _cut(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:64] + "…")

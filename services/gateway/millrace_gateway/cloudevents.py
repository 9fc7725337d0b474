"""CloudEvents 1.0 over HTTP, to what a producer's own post would have been. Pure; `docs/guides/ingest.md` tells users.

| CloudEvents | here |
|---|---|
| `type` `e:provider/name` | the identifier |
| any other `type` | the name; the provider is extension `provider`, else `cloudevents` |
| `source` and `id` (unique together, says the standard) | `uniqueKey`: `<source> <id>`, hashed where that is too long |
| `time` | `timestamp` |
| extension `partitionkey` | `orderingKey` |
| `data`, an object | `properties`, byte for byte |
| `data`, other JSON, or text | `properties` `{"data": …}` |
| `data_base64`, or other bytes | `properties` `{"data_base64": "…"}` |
| everything else, `source` and `id` too | the event's `extensions` |

Binary mode: attributes from `ce-*` headers (percent-decoded), data = the body, `datacontenttype` = `Content-Type`.
Structured mode: one JSON object; a batch is an array of them.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

import msgspec
import orjson

from millrace_core import event, limits
from millrace_core.errors import Reject
from millrace_core.event import Posted
from millrace_core.identifiers import identifier_of, parse_identifier
from millrace_core.messages import Raw

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
PROVIDER = "cloudevents"
HEADER_PREFIX = b"ce-"
ATTRIBUTES_MAX = 64
ATTRIBUTE_CHARS_MAX = 4_096

_NAME = re.compile(r"[a-z0-9]{1,64}")
_JSON_TYPE = re.compile(r"(?i)\s*[\w.+-]+/(json|[\w.-]+\+json)\s*(;.*)?", re.DOTALL)
_TEXT_TYPE = re.compile(r"(?i)\s*(text/|[\w.+-]+/([\w.-]+\+)?xml)")
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
# Context attributes with a place of their own in the event.
_PLACED = frozenset({"specversion", "time", "partitionkey", "provider"})


def from_structured(body: bytes, *, now_ms: int) -> Posted:
    """One event of structured mode, or one item of a batch. Raises Reject with a message for the producer."""
    try:
        loaded = orjson.loads(body)
        if not isinstance(loaded, dict):
            raise Reject("a CloudEvent must be one JSON object with specversion, id, source and type")
        raw = _decode_members(body)
    except orjson.JSONDecodeError as error:
        raise Reject(f"the CloudEvent is not valid JSON: {error}. Correct it and send it again") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Reject(f"the CloudEvent cannot be read: {error}") from None
    data, encoded = raw.pop("data", None), raw.pop("data_base64", None)
    attributes = {name: _text(name, loaded[name]) for name in raw if loaded[name] is not None}
    return _posted(attributes, _structured_properties(attributes, data, encoded, loaded), now_ms)


def from_binary(headers: Mapping[bytes, bytes], body: bytes, *, now_ms: int) -> Posted:
    """One event of binary mode, from lower-case headers and the body. Raises Reject with a message for the producer."""
    attributes = {
        name[len(HEADER_PREFIX) :].decode("latin-1"): _header_text(name, value)
        for name, value in headers.items()
        if name.startswith(HEADER_PREFIX)
    }
    content_type = headers.get(b"content-type")
    if content_type is not None:
        attributes["datacontenttype"] = content_type.decode("latin-1")
    return _posted(attributes, _binary_properties(attributes, body), now_ms)


def _posted(attributes: Mapping[str, str], properties: Raw, now_ms: int) -> Posted:
    _check(attributes)
    ordering_key = attributes.get("partitionkey")
    if ordering_key is not None:
        event.check_key(ordering_key, "partitionkey", limits.ORDERING_KEY_CHARS_MAX)
    time = attributes.get("time")
    return Posted(
        identifier=_identifier(attributes),
        properties=properties,
        timestamp=None if time is None else event.parse_timestamp(time, now_ms=now_ms),
        unique_key=_unique_key(attributes["source"], attributes["id"]),
        ordering_key=ordering_key,
        extensions={name: value for name, value in attributes.items() if name not in _PLACED},
    )


def _check(attributes: Mapping[str, str]) -> None:
    version = attributes.get("specversion")
    if version != "1.0":
        raise Reject(f"`specversion` must be 1.0, not {version!r}: this is CloudEvents 1.0")
    for name in ("id", "source", "type"):
        if not attributes.get(name):
            raise Reject(f"`{name}` is missing: a CloudEvent has specversion, id, source and type, none of them empty")
    if len(attributes) > ATTRIBUTES_MAX:
        raise Reject(f"the CloudEvent has {len(attributes)} attributes: use up to {ATTRIBUTES_MAX}")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise Reject(f"{name[:64]!r} is not an attribute's name: use up to 64 lower-case letters and digits")
        if len(value) > ATTRIBUTE_CHARS_MAX:
            raise Reject(f"`{name}` has {len(value)} characters: use up to {ATTRIBUTE_CHARS_MAX}")


def _identifier(attributes: Mapping[str, str]) -> str:
    type_ = attributes["type"]
    try:
        if type_.startswith("e:"):
            parse_identifier(type_)
            return type_
        return identifier_of(attributes.get("provider", PROVIDER), type_)
    except Reject as error:
        raise Reject(f"`type`: {error}") from None


def _unique_key(source: str, id: str) -> str:
    # A source is a URI reference and holds no space, so the two cannot run into each other.
    key = f"{source} {id}"
    if len(key) <= limits.UNIQUE_KEY_CHARS_MAX:
        return key
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def _text(name: str, value: object) -> str:
    """An attribute in its canonical text: strings, booleans and integers are all that the standard knows."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise Reject(f"attribute `{name}` must be a string, a boolean or an integer")


def _header_text(name: bytes, value: bytes) -> str:
    text = value.strip()
    if len(text) > 1 and text[:1] == text[-1:] == b'"':
        text = re.sub(rb"\\(.)", rb"\1", text[1:-1])
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise Reject(f"header {name.decode('latin-1')} is not percent-encoded UTF-8") from None


def _is_json(content_type: str | None) -> bool:
    return content_type is None or _JSON_TYPE.fullmatch(content_type) is not None


def _structured_properties(
    attributes: Mapping[str, str], data: Raw | None, encoded: Raw | None, loaded: Mapping[str, object]
) -> Raw:
    if encoded is not None and loaded["data_base64"] is not None:
        if data is not None and loaded["data"] is not None:
            raise Reject("a CloudEvent has `data` or `data_base64`, not both")
        return _from_base64(attributes, loaded["data_base64"])
    if data is None or loaded["data"] is None:
        return event.NO_PROPERTIES
    if isinstance(loaded["data"], dict) and _is_json(attributes.get("datacontenttype")):
        return event.checked_properties(bytes(data))
    return event.checked_properties(b'{"data":%b}' % bytes(data))


def _from_base64(attributes: Mapping[str, str], encoded: object) -> Raw:
    try:
        data = base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None:
        raise Reject("`data_base64` is not base64: correct it, or send `data`")
    # JSON may travel in base64 too, and is then JSON all the same.
    if "datacontenttype" in attributes and _is_json(attributes["datacontenttype"]):
        return _json_properties(data)
    return event.checked_properties(orjson.dumps({"data_base64": encoded}))


def _binary_properties(attributes: Mapping[str, str], body: bytes) -> Raw:
    if not body:
        return event.NO_PROPERTIES
    content_type = attributes.get("datacontenttype")
    if _is_json(content_type):
        return _json_properties(body)
    if content_type is not None and _TEXT_TYPE.match(content_type):
        try:
            return event.checked_properties(orjson.dumps({"data": body.decode("utf-8")}))
        except UnicodeDecodeError:
            pass
    return event.checked_properties(orjson.dumps({"data_base64": base64.b64encode(body).decode()}))


def _json_properties(data: bytes) -> Raw:
    trimmed = data.strip()
    if trimmed in (b"", b"null"):
        return event.NO_PROPERTIES
    if trimmed.startswith(b"{"):
        return event.checked_properties(trimmed)
    return event.checked_properties(b'{"data":%b}' % trimmed)

"""The connector pattern: five calls behind which all that is special to a platform stands.

    identity_providers   how the platform's users are told apart
    context_providers    what an assistant may look up
    register_actions     action contracts the platform offers
    subscribers          events that it wants to hear
    handle_webhook       what a webhook of the platform means: events, or why it is refused

A connector is a folder with `connector.py`, in which one class has these five methods; a remote one serves the same
calls over signed HTTP, under the names `identityProviders` … `handleWebhook`. Here are the shapes both are held to:
whatever a connector answers is checked before anything is done with it. Pure. Not here: where a connector runs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import orjson

from millrace_core import event_names, limits
from millrace_core.errors import Reject
from millrace_core.event import Posted, check_depth, check_key, checked_properties, parse_timestamp
from millrace_core.identifiers import identifier_of

Declaration = Literal["identity_providers", "context_providers", "register_actions", "subscribers"]
Call = Declaration | Literal["handle_webhook"]
DECLARATIONS: Final[tuple[Declaration, ...]] = (
    "identity_providers",
    "context_providers",
    "register_actions",
    "subscribers",
)
CALLS: Final[tuple[Call, ...]] = (*DECLARATIONS, "handle_webhook")
WIRE_NAMES: Final[Mapping[Call, str]] = MappingProxyType(
    {
        "identity_providers": "identityProviders",
        "context_providers": "contextProviders",
        "register_actions": "registerActions",
        "subscribers": "subscribers",
        "handle_webhook": "handleWebhook",
    }
)
REMOTE: Final = "remote"
"""The connector that is served elsewhere."""

is_connector_name = re.compile(r"[a-z][a-z0-9_]{0,63}").fullmatch


@dataclass(frozen=True, slots=True)
class Inbound:
    """A webhook as it came in. Header names are lower case."""

    method: str
    headers: Mapping[str, str]
    query: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """The connector does not take it: 401 where the signature is wrong, 400 where the body is."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Handled:
    """What a webhook means: events in order, and the object to answer with, where the platform wants one."""

    events: Sequence[Posted]
    answer: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Events, as documents name them, and where they are to be sent; None = the connector's own address."""

    events: tuple[str, ...]
    url: str | None


def handled(result: Any, *, now_ms: int) -> Handled | Refusal:
    """What `handle_webhook` answered, checked. Raises Reject when it is not of that shape."""
    found = {"events": result} if isinstance(result, list) else result
    if not isinstance(found, dict):
        raise Reject("handle_webhook must answer a list of events, or an object with `events` or `refuse`")
    if "refuse" in found:
        return _refusal(found["refuse"])
    events, answer = found.get("events", []), found.get("answer")
    if not isinstance(events, list) or len(events) > limits.CONNECTOR_EVENTS_MAX:
        raise Reject(f"`events` must be a list of at most {limits.CONNECTOR_EVENTS_MAX}")
    if answer is not None and not isinstance(answer, dict):
        raise Reject("`answer` must be an object")
    check_depth(answer)
    return Handled([_event(index, event, now_ms) for index, event in enumerate(events)], answer)


def _refusal(given: Any) -> Refusal:
    said = given if isinstance(given, dict) else {"message": given}
    status, message = said.get("status", 400), said.get("message")
    if status not in (400, 401) or not isinstance(message, str):
        raise Reject("`refuse` must have a `message`, and a `status` that is 400 or 401")
    return Refusal(status, message[: limits.CONNECTOR_ERROR_CHARS_MAX])


def _event(index: int, event: Any, now_ms: int) -> Posted:
    """One event: `{event, payload, unique_key?, ordering_key?, timestamp?}`."""
    where = f"events.{index}"
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise Reject(f"{where} must be an object with `event`, a name such as invoice.paid")
    keys = {name: event.get(name) for name in ("unique_key", "ordering_key", "timestamp")}
    for name, value in keys.items():
        if value is not None and not isinstance(value, str):
            raise Reject(f"{where}.{name} must be a text")
    unique, ordering, timestamp = keys.values()
    if unique is not None:
        check_key(unique, "unique_key", limits.UNIQUE_KEY_CHARS_MAX)
    if ordering is not None:
        check_key(ordering, "ordering_key", limits.ORDERING_KEY_CHARS_MAX)
    try:
        properties = checked_properties(orjson.dumps(event.get("payload", {})))
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise Reject(f"{where}.payload is no JSON: {error}") from None
    if len(properties) > limits.BODY_BYTES_MAX:
        raise Reject(f"{where}.payload is over {limits.BODY_BYTES_MAX} bytes")
    return Posted(
        identifier_of(event_names.OPS_PROVIDER, event["event"]),
        properties,
        timestamp=None if timestamp is None else parse_timestamp(timestamp, now_ms=now_ms),
        unique_key=unique,
        ordering_key=ordering,
    )


def declared(call: Declaration, result: Any) -> list[dict[str, Any]]:
    """What one of the other four answered, checked. Raises Reject when it is not of that shape."""
    if not isinstance(result, list) or len(result) > limits.CONNECTOR_DECLARED_MAX:
        raise Reject(f"{call} must answer a list of at most {limits.CONNECTOR_DECLARED_MAX} objects")
    if not all(isinstance(one, dict) for one in result):
        raise Reject(f"{call} must answer a list of objects")
    check_depth(result)
    if len(orjson.dumps(result)) > limits.CONNECTOR_DECLARED_BYTES_MAX:
        raise Reject(f"{call} answered more than {limits.CONNECTOR_DECLARED_BYTES_MAX} bytes")
    if call == "subscribers":
        for one in result:
            subscriber(one)
    return result


def subscriber(declaration: Mapping[str, Any]) -> Subscriber:
    """One of `subscribers`: `{events, url?}`. Raises Reject."""
    events, url = declaration.get("events"), declaration.get("url")
    if not isinstance(events, list) or not events or not all(isinstance(event, str) for event in events):
        raise Reject("a subscriber must have `events`, a list of names such as invoice.paid")
    if url is not None and not isinstance(url, str):
        raise Reject("a subscriber's `url` must be a text")
    for event in events:
        event_names.pattern_of(event)
    return Subscriber(tuple(events), url)


def check_config(config: Mapping[str, Any]) -> None:
    """Raises Reject unless this may be a connection's configuration."""
    check_depth(config)
    if len(orjson.dumps(config)) > limits.CONNECTOR_CONFIG_BYTES_MAX:
        raise Reject(f"it is over {limits.CONNECTOR_CONFIG_BYTES_MAX} bytes")

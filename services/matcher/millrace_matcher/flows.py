"""What the flow of a subscription or an account asks of the matcher: a match's key and priority, and the events that
cancel matches.

A key is what the flow's expression comes to for the event: text as it is, anything else as JSON, the empty text where
there is no expression or it fails, so that an odd event never stops the others. Not here: what becomes of a match (the
orchestrator's `admissions`), and who drops what comes twice (its source window).
"""

from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from typing import Any

import msgspec
import orjson

from millrace_core import limits
from millrace_core.errors import Reject
from millrace_core.expressions import Scope, compiled, event_variable
from millrace_core.flow import AT_ONCE, makes_lists
from millrace_core.handling import ControlFollower
from millrace_core.matching import Subscription, SubscriptionIndex
from millrace_core.messages import AccountControl, FlowControl, FlowPart, SubscriptionControl, decode, encode
from millrace_matcher.outputs import Origin

_KEPT_CHARS = limits.FLOW_KEY_CHARS_MAX - 33


class Followed:
    """Follows kind `subscription` for two indexes: who hears an event, and what it cancels."""

    def __init__(self, subscriptions: ControlFollower, cancelling: SubscriptionIndex) -> None:
        self._subscriptions = subscriptions
        self._cancelling = cancelling

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        self._subscriptions.apply(account, id, value)
        # Few have one: the bytes of the others are not looked into.
        has_one = value is not None and b'"cancel_on"' in value
        self._cancelling.apply(account, id, _listening_for_cancels(value) if has_one else None)


class AccountFlows:
    """Follows kind `account`: the flows over all subscriptions of an account, and what cancels by them."""

    def __init__(self, cancelling: SubscriptionIndex) -> None:
        self._flows: dict[str, FlowControl] = {}
        self._cancelling = cancelling

    def get(self, account: str) -> FlowControl | None:
        """The account's flow; None = its runs begin as their subscriptions let them."""
        return self._flows.get(account)

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        flow = _account_flow(value)
        if flow is None:
            self._flows.pop(account, None)
        else:
            self._flows[account] = flow
        self._cancelling.apply(account, id, _cancels_of_account(account, flow))


def _account_flow(value: bytes | None) -> FlowControl | None:
    try:
        flow = None if value is None else decode(value, AccountControl).flow
    except Reject:
        return None
    return None if flow == AT_ONCE else flow


def _cancels_of_account(account: str, flow: FlowControl | None) -> bytes | None:
    """As a subscription to the events that cancel by it, under the account's id. It starts nothing."""
    if flow is None or flow.cancel_on is None:
        return None
    on = flow.cancel_on
    return encode(
        SubscriptionControl(
            account=account,
            pattern=on.pattern,
            target_kind="plan",
            target_id="",
            created_at=0,
            where=on.where,
            flow=flow,
            filter=on.filter,
        )
    )


def _listening_for_cancels(value: bytes | None) -> bytes | None:
    """The subscription as one to the events that cancel its matches."""
    try:
        control = decode(value, SubscriptionControl)
    except Reject:
        return None
    cancel_on = None if control.flow is None else control.flow.cancel_on
    if cancel_on is None:
        return None
    return encode(
        msgspec.structs.replace(control, pattern=cancel_on.pattern, where=cancel_on.where, filter=cancel_on.filter)
    )


def scope_of(origin: Origin) -> Callable[[], Scope]:
    """What expressions see of the event, made when it is first asked for."""

    @cache
    def scope() -> Scope:
        return Scope({"input": _parsed(origin.properties), "event": event_variable(origin.event)})

    return scope


def part_of(flow: FlowControl, origin: Origin, scope: Callable[[], Scope]) -> FlowPart:
    """Where a match stands in a flow."""
    return FlowPart(
        key=_key(flow.key, scope),
        priority=_priority(flow.priority, scope),
        partition=origin.record.partition,
        offset=origin.record.offset,
        at=origin.event.received_at,
        bundled=makes_lists(flow),
    )


def key_to_cancel(heard: Subscription, scope: Callable[[], Scope]) -> str:
    """The key whose matches an event cancels."""
    flow = heard.flow
    assert flow is not None, "it stands in the index for that"
    assert flow.cancel_on is not None, "it stands in the index for that"
    return _key(flow.cancel_on.key or flow.key, scope)


def _key(expression: str | None, scope: Callable[[], Scope]) -> str:
    if expression is None:
        return ""
    try:
        value = compiled(expression).value(scope())
    except Reject:
        return ""
    key = value if isinstance(value, str) else orjson.dumps(value).decode()
    if len(key) <= limits.FLOW_KEY_CHARS_MAX:
        return key
    return f"{key[:_KEPT_CHARS]}~{blake2b(key.encode(), digest_size=16).hexdigest()}"


def _priority(expression: str | None, scope: Callable[[], Scope]) -> int:
    if expression is None:
        return limits.FLOW_PRIORITY_DEFAULT
    try:
        value = compiled(expression).value(scope())
    except Reject:
        return limits.FLOW_PRIORITY_DEFAULT
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return min(max(int(value), 0), limits.FLOW_PRIORITY_MAX) if is_number else limits.FLOW_PRIORITY_DEFAULT


def _parsed(properties: bytes) -> Any:
    try:
        return orjson.loads(properties)
    except orjson.JSONDecodeError as error:
        raise Reject(f"the event's properties are not valid JSON: {error}") from None

"""Which subscriptions hear an event: an index, so that a million of them cost what ten do.

The matcher follows the kind `subscription` of the control log with it. By account: a hash of exact identifiers, and
for wildcards a hash for each length of prefix in use, so that an event probes only lengths that exist. Where many
stand in one place, a `Crowd` finds those whose filter asks for a value the event has.
Values are kept as the bytes they came in and compiled when first needed; the latest are kept compiled.
Pure; not safe to use from two threads.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import msgspec
import orjson

from millrace_core import limits
from millrace_core.crowd import NO_FILTER, Crowd, Entry
from millrace_core.errors import Reject
from millrace_core.filters import Test, compile_filter
from millrace_core.identifiers import PLATFORM_PROVIDER, Half, Pattern, parse_identifier, parse_pattern
from millrace_core.messages import Event, FlowControl, SubscriptionControl, decode

# Up to here all who stand in one place are looked at; beyond it an index is cheaper, and worth its memory.
_FEW: Final = 8
_COMPILED_MAX: Final = 20_000
_HOWEVER_OLD: Final = 1 << 62


class Conditions(Protocol):
    """The language of `where` expressions."""

    def compile(self, expression: str) -> Callable[[Any], bool]:
        """The expression as a function of a scope. Raises Reject."""
        ...

    def scope(self, properties: Any, event: Event | None) -> Any:
        """What expressions see of one event. Made once for all of them."""
        ...


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """One subscription that heard an event, with what its outputs need."""

    id: str
    target_kind: str
    target_id: str
    priority: int
    created_at: int
    asks: bool  # of the properties, by filter or expression
    test: Test | None
    where: Callable[[Any], bool] | None
    flow: FlowControl | None = None


Place = Entry | list[Entry] | Crowd
K = TypeVar("K", str, int)


class _Names(msgspec.Struct, eq=False):
    """The second halves of patterns whose first half is the same: literals, and prefixes by length."""

    literal: dict[str, Place]
    prefixes: dict[int, dict[str, Place]]


class _Account(msgspec.Struct, eq=False):
    """Everything of one account. `exact` is by identifier, `literal` and `prefixes` are by provider."""

    entries: dict[str, Entry]
    exact: dict[str, Place]
    literal: dict[str, _Names]
    prefixes: dict[int, dict[str, _Names]]


class SubscriptionIndex:
    """Follows `subscription` control records, and answers who hears an event."""

    def __init__(self, *, conditions: Conditions | None = None) -> None:
        """Without `conditions` a subscription that has a `where` never matches."""
        self._accounts: dict[str, _Account] = {}
        self._conditions = conditions
        self._compiled: dict[Entry, Subscription | None] = {}

    def __len__(self) -> int:
        return sum(len(account.entries) for account in self._accounts.values())

    @property
    def is_empty(self) -> bool:
        return not self._accounts

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        """The newest version of a subscription; None, disabled or damaged = it hears nothing from now on."""
        held = self._accounts.get(account)
        if held is not None and (old := held.entries.pop(id, None)) is not None:
            self._compiled.pop(old, None)
            _place(held, old, _pattern_of(old), joins=False)
            if not held.entries:
                del self._accounts[account]
                held = None
        pattern = None if value is None else _sound_pattern(value)
        if value is None or pattern is None:
            return
        if held is None:
            held = self._accounts[account] = _Account({}, {}, {}, {})
        entry = held.entries[id] = Entry(id, value)
        _place(held, entry, pattern, joins=True)

    def match(
        self,
        account: str,
        identifier: str,
        properties: bytes,
        *,
        received_at: int,
        event: Event | None = None,
        only: str | None = None,
    ) -> list[Subscription]:
        """Who hears this event, by priority, then id. The properties are parsed only if a candidate asks for them,
        and once. Raises Reject when the identifier or, if they are needed, the properties cannot be read.

        A subscription never hears what was received longer than the reach-back before it was created: unless it is
        the `only` one that is asked, as by a replay that names it."""
        held = self._accounts.get(account)
        if held is None:
            return []
        data: Any = None
        candidates: list[Entry] = []
        for place in _places(held, identifier):
            if isinstance(place, Entry):
                candidates.append(place)
            elif isinstance(place, list):
                candidates += place
            else:
                data = _parsed(properties) if data is None else data
                candidates += place.candidates(data)
        if only is not None:
            candidates = [entry for entry in candidates if entry.id == only]
            received_at = _HOWEVER_OLD
        found: list[Subscription] = []
        scope: Any = None
        for entry in candidates:
            subscription = self._compiled[entry] if entry in self._compiled else self._compile(entry)
            if subscription is None or received_at < subscription.created_at - limits.SUBSCRIPTION_REACH_BACK_MS:
                continue
            if subscription.asks:
                data = _parsed(properties) if data is None else data
                if subscription.test is not None and not subscription.test(data):
                    continue
                if subscription.where is not None and self._conditions is not None:
                    scope = self._conditions.scope(data, event) if scope is None else scope
                    if not subscription.where(scope):
                        continue
            found.append(subscription)
        if len(found) > 1:
            found.sort(key=_order)
        return found

    def _compile(self, entry: Entry) -> Subscription | None:
        """The subscription ready for use; None when it can match nothing. Remembered either way."""
        control = decode(entry.value, SubscriptionControl)
        compiled: Subscription | None
        try:
            where = None if control.where is None else self._condition(control.where)
            test = None if bytes(control.filter) in NO_FILTER else compile_filter(orjson.loads(bytes(control.filter)))
            compiled = Subscription(
                id=entry.id,
                target_kind=control.target_kind,
                target_id=control.target_id,
                priority=control.priority,
                created_at=control.created_at,
                asks=test is not None or where is not None,
                test=test,
                where=where,
                flow=control.flow,
            )
        except Reject:
            compiled = None  # its expression was right when it was saved, by an older release
        if len(self._compiled) >= _COMPILED_MAX:
            # The older half goes: simpler than counting uses, and what is hot comes back with its next event.
            for old in list(self._compiled)[: _COMPILED_MAX // 2]:
                del self._compiled[old]
        self._compiled[entry] = compiled
        return compiled

    def _condition(self, expression: str) -> Callable[[Any], bool]:
        if self._conditions is None:
            raise Reject("no expression language is at hand")
        return self._conditions.compile(expression)


def _order(subscription: Subscription) -> tuple[int, str]:
    return subscription.priority, subscription.id


def _parsed(properties: bytes) -> Any:
    try:
        return orjson.loads(properties)
    except orjson.JSONDecodeError as error:
        raise Reject(f"the event's properties are not valid JSON: {error}") from None


# ── which places an identifier looks into ───────────────────────────────────────────────────────────────────────────
def _places(held: _Account, identifier: str) -> list[Place]:
    exact = held.exact.get(identifier)
    found = [] if exact is None else [exact]
    if not held.literal and not held.prefixes:
        return found
    provider, name = parse_identifier(identifier)
    names = held.literal.get(provider)
    if names is not None:
        _named(names, name, found)
    if provider != PLATFORM_PROVIDER:
        for length, by_prefix in held.prefixes.items():
            names = by_prefix.get(provider[:length])
            if names is not None:
                _named(names, name, found)
    return found


def _named(names: _Names, name: str, found: list[Place]) -> None:
    # A slice shorter than its length was asked for has no entry: prefixes are kept under their own length.
    literal = names.literal.get(name)
    if literal is not None:
        found.append(literal)
    for length, by_prefix in names.prefixes.items():
        prefixed = by_prefix.get(name[:length])
        if prefixed is not None:
            found.append(prefixed)


# ── where a pattern stands ──────────────────────────────────────────────────────────────────────────────────────────
def _place(held: _Account, entry: Entry, pattern: Pattern, *, joins: bool) -> None:
    """Put an entry where its pattern stands, or take it away again and leave nothing empty behind."""
    provider = pattern.provider
    if pattern.is_exact:
        _settle(held.exact, str(pattern), entry, joins=joins)
    elif not provider.open:
        _place_name(held.literal, provider.text, pattern.name, entry, joins=joins)
    else:
        by_prefix = held.prefixes.setdefault(len(provider.text), {})
        _place_name(by_prefix, provider.text, pattern.name, entry, joins=joins)
        _drop_empty(held.prefixes, len(provider.text), by_prefix)


def _place_name(by_provider: dict[str, _Names], provider: str, name: Half, entry: Entry, *, joins: bool) -> None:
    names = by_provider.setdefault(provider, _Names({}, {}))
    if name.open:
        by_prefix = names.prefixes.setdefault(len(name.text), {})
        _settle(by_prefix, name.text, entry, joins=joins)
        _drop_empty(names.prefixes, len(name.text), by_prefix)
    else:
        _settle(names.literal, name.text, entry, joins=joins)
    if not names.literal and not names.prefixes:
        del by_provider[provider]


def _drop_empty(places: dict[K, dict[str, Any]], key: K, there: dict[str, Any]) -> None:
    if not there:
        del places[key]


def _settle(places: dict[str, Place], key: str, entry: Entry, *, joins: bool) -> None:
    place = places.get(key)
    after = _joined(place, entry) if joins else _left(place, entry)
    if after is None:
        places.pop(key, None)
    else:
        places[key] = after


def _joined(place: Place | None, entry: Entry) -> Place:
    """One stands alone, a few in a list, more in a crowd."""
    if place is None:
        return entry
    if isinstance(place, Entry):
        return [place, entry]
    if isinstance(place, list):
        if len(place) < _FEW:
            place.append(entry)
            return place
        crowd = Crowd()
        for one in place:
            crowd.join(one)
        place = crowd
    place.join(entry)
    return place


def _left(place: Place | None, entry: Entry) -> Place | None:
    if isinstance(place, Crowd):
        place.leave(entry)
        return place if len(place) else None
    if isinstance(place, list):
        return [one for one in place if one is not entry] or None
    return None


# ── reading what is kept ────────────────────────────────────────────────────────────────────────────────────────────
class _PatternOnly(msgspec.Struct, gc=False):
    pattern: str


_pattern_only = msgspec.json.Decoder(_PatternOnly).decode


def _pattern_of(entry: Entry) -> Pattern:
    return parse_pattern(_pattern_only(entry.value).pattern)


def _sound_pattern(value: bytes) -> Pattern | None:
    """The pattern of a control record that can be used: whole, enabled, its filter right."""
    try:
        control = decode(value, SubscriptionControl)
        pattern = parse_pattern(control.pattern)
        if bytes(control.filter) not in NO_FILTER:
            compile_filter(orjson.loads(bytes(control.filter)))
    except (Reject, orjson.JSONDecodeError):
        return None
    return pattern if control.enabled else None

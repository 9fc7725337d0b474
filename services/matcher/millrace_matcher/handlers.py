"""What an event comes to: the runs it starts, the deliveries it asks for, and the one fact that names them.

Pure; driven by `millrace_kafka.idempotent`, at least once. Every id is derived from the event, so a record handled
again names the same things; an event's properties are parsed only when a filter asks for them, and pass through as
bytes. A record that cannot be handled becomes a dead letter, and the partition goes on.
A record of a replay passes by the `uniqueKey` window and carries the replay's id in all it names; that the replay wrote
it twice (its writer crashed) is told by a key of its own.
Not here: the order in which things become visible (the processor's), and who drops what comes twice (the
orchestrator's and dispatcher's source windows).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from millrace_core import ids, limits, record
from millrace_core.dead_letters import dead_letter
from millrace_core.errors import Reject
from millrace_core.expressions import Scope, WhereConditions
from millrace_core.handling import ControlFollower, Handled
from millrace_core.identifiers import parse_identifier
from millrace_core.matching import SubscriptionIndex
from millrace_core.messages import Event, EventFact, FlowPart, decode
from millrace_core.record import Output, Received
from millrace_matcher import flows
from millrace_matcher.outputs import (
    Origin,
    cancel_matches,
    delivery,
    delivery_body,
    matched_facts,
    named_delivery,
    origin_of,
    other_fact,
    start_run,
)
from millrace_matcher.tally import Tallies
from millrace_matcher.targets import Endpoints, Plans
from millrace_matcher.unique_keys import UniqueKeys, digest_of

_BEFORE_PROPERTIES = b'"properties":'
_YEAR_10000_MS = 253_402_300_800_000
_decode_head = msgspec.json.Decoder(Event).decode


Told = Callable[[int, Mapping[str, int], Handled], None]
"""Told of each batch: its partition, how many records had which outcome, what they came to. Must not raise."""


class MatcherHandler:
    """Implements `millrace_core.handling.IdempotentHandler`."""

    def __init__(self, *, told: Told = lambda partition, outcomes, handled: None) -> None:
        self._told = told
        self.subscriptions = SubscriptionIndex(conditions=WhereConditions())
        self.cancelling = SubscriptionIndex(conditions=WhereConditions())
        self.account_flows = flows.AccountFlows(self.cancelling)
        self.plans = Plans()
        self.endpoints = Endpoints()
        self.unique_keys = UniqueKeys()
        self._tallies = Tallies()

    @property
    def followers(self) -> Mapping[str, ControlFollower]:
        """By kind: who follows what on the control log."""
        subscriptions = flows.Followed(self.subscriptions, self.cancelling)
        return {
            "subscription": subscriptions,
            "account": self.account_flows,
            "plan": self.plans,
            "endpoint": self.endpoints,
        }

    def restore(self, partition: int, entries: Iterable[tuple[bytes, bytes, int]]) -> None:
        """Take the partition's dedupe entries, oldest first, in place of what was known of it."""
        self.unique_keys.restore(partition, ((key, value) for key, value, _ in entries))

    def forget(self, partition: int) -> None:
        """The partition went to another owner."""
        self.unique_keys.forget(partition)

    def handle(self, records: Sequence[Received], position: int) -> Handled:
        """Decide a batch of one partition, in order. Safe to repeat: the same records name the same ids."""
        handled = Handled([], [], [])
        control = b"%d" % position
        outcomes: Counter[str] = Counter()
        for one in records:
            try:
                outcomes[self._decide(one, control, handled)] += 1
            # Beside Reject: half a surrogate pair, or lists nested without end, which only the gateway keeps out.
            except (Reject, UnicodeEncodeError, RecursionError) as reason:
                handled.outputs.append(dead_letter(one, str(reason)))
                handled.facts.extend(parked(one, str(reason), control))
                outcomes["dead_lettered"] += 1
        if records:
            self._told(records[0].partition, outcomes, handled)
        return handled

    def tally(self) -> list[Output]:
        """The counts of all batches since the last call."""
        return self._tallies.take()

    def _decide(self, one: Received, control: bytes, handled: Handled) -> str:
        """One record, and its outcome. What raises Reject in here has left nothing behind."""
        headers = dict(one.headers)
        event, properties = read_event(one, headers)
        origin = origin_of(one, event, properties, headers, control)
        if event.hops > limits.HOPS_MAX:
            reason = f"hops: the event came through {event.hops} runs, at most {limits.HOPS_MAX} are allowed"
            handled.facts.append(other_fact(origin, _fact(origin, "refused", reason=reason)))
            return "refused"
        digest = None
        counts_once = event.unique_key if event.replay is None else f"{event.replay}\x1f{event.id}"
        if counts_once is not None:
            digest = digest_of(event.account, event.identifier, event.ordering_key or "", counts_once)
            earlier = self.unique_keys.earlier(
                one.partition, digest, offset=one.offset, at_ms=one.timestamp, event=event.id
            )
            if earlier is not None:
                twice = None if event.replay is None else f"replay {event.replay} had written it already"
                fact = _fact(origin, "duplicate", duplicate_of=earlier.event, reason=twice)
                handled.facts.append(other_fact(origin, fact))
                return "duplicate"
        outputs, runs, deliveries = self._children(origin)
        if digest is not None:
            change = self.unique_keys.claim(
                one.partition, digest, offset=one.offset, at_ms=one.timestamp, event=event.id
            )
            handled.changes.append((one.partition, *change))
        handled.outputs.extend(outputs)
        handled.facts.extend(matched_facts(origin, runs, deliveries))
        self._tallies.add(one, event.account, event.identifier, len(runs), len(deliveries))
        return "matched" if runs or deliveries else "unmatched"

    def _children(self, origin: Origin) -> tuple[list[Output], list[tuple[str, str]], list[tuple[str, str, str]]]:
        event = origin.event
        account, replay = event.account, event.replay or ""
        outputs: list[Output] = []
        runs: list[tuple[str, str]] = []
        deliveries: dict[str, tuple[str, str, str]] = {}
        body: bytes | None = None
        scope: Callable[[], Scope] | None = None
        account_flow = self.account_flows.get(account)
        account_part: FlowPart | None = None
        received_at = origin.record.timestamp if event.replay is None else event.received_at
        for heard in self.subscriptions.match(
            account, event.identifier, origin.properties, received_at=received_at, event=event, only=event.only
        ):
            target = heard.target_id
            if heard.target_kind == "endpoint":
                # Several subscriptions may lead to one endpoint: it gets the event once, for the first of them.
                if target in deliveries or not self.endpoints.is_open(account, target):
                    continue
                id = ids.delivery_id_of(event.id, target, replay)
                naming = self.endpoints.naming(account, target)
                if naming is None:
                    body = delivery_body(event, origin.properties) if body is None else body
                    made = delivery(origin, id=id, endpoint=target, subscription=heard.id, body=body)
                else:
                    made = named_delivery(origin, naming, id=id, endpoint=target, subscription=heard.id)
                outputs.append(made)
                deliveries[target] = (id, heard.id, target)
            elif (plan := self.plans.get(account, target)) is not None:
                id = ids.run_id_of(event.id, heard.id, replay)
                part = None
                if heard.flow is not None:
                    scope = scope or flows.scope_of(origin)
                    part = flows.part_of(heard.flow, origin, scope)
                if account_flow is not None and account_part is None:
                    scope = scope or flows.scope_of(origin)
                    account_part = flows.part_of(account_flow, origin, scope)
                made = start_run(origin, run=id, subscription=heard.id, plan=plan, flow=part, account_flow=account_part)
                outputs.append(made)
                runs.append((id, heard.id))
        if not self.cancelling.is_empty and event.replay is None:
            outputs += self._cancels(origin, received_at, scope or flows.scope_of(origin))
        return outputs, runs, list(deliveries.values())

    def _cancels(self, origin: Origin, received_at: int, scope: Callable[[], Scope]) -> list[Output]:
        """What the event cancels by the flows of subscriptions and of its account. A replay of the past cancels nothing
        of today."""
        event = origin.event
        return [
            cancel_matches(origin, subscription=heard.id, key=flows.key_to_cancel(heard, scope))
            for heard in self.cancelling.match(
                event.account, event.identifier, origin.properties, received_at=received_at, event=event
            )
        ]


def read_event(one: Received, headers: Mapping[str, bytes]) -> tuple[Event, bytes]:
    """The event without its properties, and their bytes, unparsed. Raises Reject when the record is no event."""
    value, start = one.value, headers.get(record.PAYLOAD)
    if value is None:
        raise Reject("the record has no value")
    at = int(start) if start and start.isdigit() and len(start) < 10 else 0
    if value[at - len(_BEFORE_PROPERTIES) : at] == _BEFORE_PROPERTIES and value[at : at + 1] == b"{":
        try:
            event = _decode_head(value[:at] + b"null}")
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Reject(f"not a valid Event: {error}") from None
        properties = value[at:-1]
    else:
        event = decode(value, Event)
        properties = bytes(event.properties)
    if not (properties.startswith(b"{") and properties.endswith(b"}")):
        raise Reject("not a valid Event: its properties are no object")
    if not event.id.startswith(f"{ids.EVENT}_") or len(event.id) != len(ids.EVENT) + 33:
        raise Reject("not a valid Event: its id is none")
    ids.time_ms_of(event.id)
    parse_identifier(event.identifier)
    if not 0 <= event.received_at < _YEAR_10000_MS:
        raise Reject("not a valid Event: it was received at no time")
    account = headers.get(record.ACCOUNT)
    if account is not None and account != event.account.encode("utf-8", "surrogatepass"):
        raise Reject("its account header names another account than its value")
    return event, properties


def _fact(origin: Origin, outcome: str, *, reason: str | None = None, duplicate_of: str | None = None) -> EventFact:
    event = origin.event
    return EventFact(
        event=event.id,
        account=event.account,
        outcome=outcome,  # type: ignore[arg-type]  # one of the literals, by its two callers
        at=origin.record.timestamp,
        reason=reason,
        duplicate_of=duplicate_of,
    )


def parked(one: Received, reason: str, control: bytes = b"0") -> list[Output]:
    """The fact of a record that became a dead letter, as far as its headers say which event it was."""
    headers = dict(one.headers)
    account, id = headers.get(record.ACCOUNT), headers.get(record.ID)
    if not account or not id:
        return []
    try:
        event = Event(id=id.decode("ascii"), account=account.decode(), identifier="", received_at=one.timestamp)
        ids.time_ms_of(event.id)
    except (Reject, UnicodeDecodeError):
        return []
    origin = origin_of(one, event, b"", headers, control)
    cut = reason[: limits.DEAD_LETTER_REASON_CHARS_MAX]
    return [other_fact(origin, _fact(origin, "dead_lettered", reason=cut))]

"""The records the matcher writes, joined from bytes: an event's properties pass through and are never written anew.

What stands here by hand is exactly what `millrace_core.messages` would encode (a test holds the two together), at a
third of the cost: this is the hot path of the platform. Ids, identifiers and numbers need no escaping; accounts and
ids that the control log brought are quoted as JSON.
"""

from functools import lru_cache

import msgspec

from millrace_core import ids, limits, record
from millrace_core.errors import Reject
from millrace_core.event import iso_of
from millrace_core.event_names import Naming
from millrace_core.messages import CancelMatches, DeliveryChild, Event, EventFact, FlowPart, RunChild, encode
from millrace_core.record import Output, Received, source_of

RUN_COMMANDS = "run-commands"
DELIVERIES = "deliveries"
EVENT_FACTS = "event-facts"
# A fact with more children is written as several: what an event matched is the union of its facts.
FACT_CHILDREN_MAX = 5_000


class Origin(msgspec.Struct, frozen=True, gc=False):
    """What all outputs of one record have in common."""

    record: Received
    event: Event
    properties: bytes
    headers: tuple[tuple[str, bytes], ...]  # without id and p


def origin_of(record_: Received, event: Event, properties: bytes, headers: dict[str, bytes], control: bytes) -> Origin:
    """`headers` are the record's own: surface and trace go on to what it causes."""
    passed: tuple[tuple[str, bytes], ...] = (
        (record.ACCOUNT, event.account.encode()),
        (record.SOURCE, source_of(record_)),
        (record.CONTROL, control),
    )
    for name in (record.SURFACE, record.TRACEPARENT):
        value = headers.get(name)
        if value:
            passed += ((name, value),)
    return Origin(record_, event, properties, passed)


def start_run(
    origin: Origin,
    *,
    run: str,
    subscription: str,
    plan: bytes,
    flow: FlowPart | None = None,
    account_flow: FlowPart | None = None,
) -> Output:
    """`run-commands`: begin the run, its plan pinned, the event's properties as its input. With flows it begins when
    they let it."""
    event = origin.event
    optional = f',"timestamp":{quoted(event.timestamp)}' if event.timestamp is not None else ""
    if event.hops:
        optional += f',"hops":{event.hops}'
    held = f',"flow":{encode(flow).decode()}' if flow is not None else ""
    if account_flow is not None:
        held += f',"account_flow":{encode(account_flow).decode()}'
    before = f'{{"command":"start","run":"{run}","account":{quoted(event.account)},"plan":'.encode()
    after = (
        f',"subscription":{quoted(subscription)},"event":{{"id":"{event.id}","identifier":"{event.identifier}",'
        f'"received_at":{event.received_at}{optional}}}{held},"input":'
    ).encode()
    value = b"".join((before, plan, after, origin.properties, b"}"))
    key = run.encode()
    return _sized(Output(RUN_COMMANDS, key, value, _headers(origin, key, len(before) + len(plan) + len(after))))


def cancel_matches(origin: Origin, *, subscription: str, key: str) -> Output:
    """`run-commands`: cancel what came before this event under this key of the flow of `subscription`, or of the
    account, by its id."""
    event = origin.event
    id = ids.derived_id(ids.RUN, ids.time_ms_of(event.id), "cancel", event.id, subscription)
    command = CancelMatches(
        run=id,
        account=event.account,
        subscription=subscription,
        event=event.id,
        key=key,
        partition=origin.record.partition,
        offset=origin.record.offset,
        at=event.received_at,
    )
    return Output(RUN_COMMANDS, id.encode(), encode(command), (*origin.headers, (record.ID, id.encode())))


def delivery_body(event: Event, properties: bytes, type: str | None = None) -> bytes:
    """What an endpoint receives, signed and sent as it stands here. `type` where it is not the identifier."""
    moment = event.timestamp if event.timestamp is not None else iso_of(event.received_at)
    head = f'{{"id":"{event.id}","type":"{type or event.identifier}","timestamp":{quoted(moment)},"data":'
    return b"".join((head.encode(), properties, b"}"))


def named_delivery(origin: Origin, naming: Naming, *, id: str, endpoint: str, subscription: str) -> Output:
    """`delivery` for an endpoint with names of its own for events. They need no escaping, as identifiers need none."""
    type = naming.type_of(origin.event.identifier)
    body = delivery_body(origin.event, origin.properties, type)
    return delivery(origin, id=id, endpoint=endpoint, subscription=subscription, body=body)


def delivery(origin: Origin, *, id: str, endpoint: str, subscription: str, body: bytes) -> Output:
    """`deliveries`: the first attempt of one message for one endpoint."""
    event = origin.event
    head = (
        f'{{"id":"{id}","account":{quoted(event.account)},"endpoint":{quoted(endpoint)},"event":"{event.id}",'
        f'"type":"{event.identifier}","created_at":{origin.record.timestamp},"subscription":{quoted(subscription)},'
        '"body":'
    ).encode()
    value = b"".join((head, body, b"}"))
    return _sized(Output(DELIVERIES, endpoint.encode(), value, _headers(origin, id.encode(), len(head))))


def matched_facts(origin: Origin, runs: list[tuple[str, str]], deliveries: list[tuple[str, str, str]]) -> list[Output]:
    """`event-facts`: what the record came to, naming its children: runs (id, subscription) and deliveries (id,
    subscription, endpoint)."""
    event = origin.event
    outcome = "matched" if runs or deliveries else "unmatched"
    if len(runs) + len(deliveries) > FACT_CHILDREN_MAX:
        return _many_facts(origin, runs, deliveries)
    children = ""
    if runs:
        named = ",".join(f'{{"id":"{id}","subscription":{quoted(by)}}}' for id, by in runs)
        children = f',"runs":[{named}]'
    if deliveries:
        named = ",".join(
            f'{{"id":"{id}","subscription":{quoted(by)},"endpoint":{quoted(to)}}}' for id, by, to in deliveries
        )
        children += f',"deliveries":[{named}]'
    value = (
        f'{{"fact":"event.decided","event":"{event.id}","account":{quoted(event.account)},"outcome":"{outcome}",'
        f'"at":{origin.record.timestamp}{children}}}'
    ).encode()
    key = event.id.encode()
    return [Output(EVENT_FACTS, key, value, (*origin.headers, (record.ID, key)))]


def other_fact(origin: Origin, fact: EventFact) -> Output:
    """`event-facts`: any outcome without children."""
    key = fact.event.encode()
    return Output(EVENT_FACTS, key, encode(fact), (*origin.headers, (record.ID, key)))


def _many_facts(origin: Origin, runs: list[tuple[str, str]], deliveries: list[tuple[str, str, str]]) -> list[Output]:
    children: list[RunChild | DeliveryChild] = [RunChild(id=id, subscription=by) for id, by in runs]
    children += [DeliveryChild(id=id, subscription=by, endpoint=to) for id, by, to in deliveries]
    return [
        other_fact(
            origin,
            EventFact(
                event=origin.event.id,
                account=origin.event.account,
                outcome="matched",
                at=origin.record.timestamp,
                runs=tuple(child for child in part if isinstance(child, RunChild)),
                deliveries=tuple(child for child in part if isinstance(child, DeliveryChild)),
            ),
        )
        for part in (children[at : at + FACT_CHILDREN_MAX] for at in range(0, len(children), FACT_CHILDREN_MAX))
    ]


def _headers(origin: Origin, id: bytes, payload_at: int) -> tuple[tuple[str, bytes], ...]:
    return (*origin.headers, (record.ID, id), (record.PAYLOAD, b"%d" % payload_at))


def _sized(output: Output) -> Output:
    """Nothing that the broker could refuse may enter a batch that others share."""
    if len(output.value or b"") > limits.RECORD_VALUE_BYTES_MAX:
        raise Reject(f"a record for {output.topic} would have more than {limits.RECORD_VALUE_BYTES_MAX} bytes")
    return output


@lru_cache(maxsize=16_384)
def quoted(text: str) -> str:
    """A text as JSON."""
    return msgspec.json.encode(text).decode()

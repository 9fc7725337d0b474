"""Node type `publish`: an event of the step's own, written together with the step's result.

Its `uniqueKey` is the step's key and its id follows from that and from the time of the record that asked for it, so a
repeat of the attempt publishes the same event, which the matcher knows as a repeat. It has one hop more than the event
that the run came from; over the bound it is refused, or an event that causes itself would never end.
"""

import msgspec

from millrace_core import event, expressions, limits
from millrace_core.errors import Reject
from millrace_core.expressions import Scope
from millrace_core.identifiers import identifier_of
from millrace_core.plans import PublishConfig
from millrace_executor.nodes.templates import template_of
from millrace_executor.ports import Attempt, Done, StepFailed, Tools

UNIQUE_KEY_PREFIX = "step/"
_decode_config = msgspec.json.Decoder(PublishConfig).decode


async def run(attempt: Attempt, tools: Tools) -> Done:
    """Publish the event this step describes."""
    step, scope = attempt.step, attempt.scope
    config = _decode_config(step.config)
    ordering_key = None if config.ordering_key is None else _text(config.ordering_key, scope, "ordering_key")
    if ordering_key is not None:
        event.check_key(ordering_key, "ordering_key", limits.ORDERING_KEY_CHARS_MAX)
    posted = event.Posted(
        identifier=identifier_of(_text(config.provider, scope, "provider"), _text(config.name, scope, "name")),
        properties=_properties(config, scope),
        unique_key=UNIQUE_KEY_PREFIX + step.key,
        ordering_key=ordering_key,
    )
    return published(posted, attempt, tools)


def published(posted: event.Posted, attempt: Attempt, tools: Tools) -> Done:
    """The event, one hop further than what the run came from. Raises StepFailed when that is too far."""
    step = attempt.step
    hops = _hops(attempt.scope) + 1
    if hops > limits.HOPS_MAX:
        raise StepFailed(
            "too_many_hops",
            f"the event would be the {hops}th in a row that events cause: break the circle of subscriptions",
            retryable=False,
        )
    # Its id from the record's time, which a repeat shares; its receipt is now.
    made = event.make_event(posted, account=step.account, now_ms=attempt.asked_by.timestamp, hops=hops)
    made = msgspec.structs.replace(made, received_at=tools.clock.now_ms())
    output = {"id": made.id, "identifier": made.identifier}
    return Done(msgspec.json.encode(output), (event.to_output(made, surface="step"),))


def _properties(config: PublishConfig, scope: Scope) -> msgspec.Raw:
    if config.properties is None:
        return event.NO_PROPERTIES
    encoded = msgspec.json.encode(expressions.render(template_of(config.properties), scope))
    if len(encoded) > limits.BODY_BYTES_MAX:
        raise StepFailed(
            "properties_too_large",
            f"the event's properties have {len(encoded)} bytes, at most {limits.BODY_BYTES_MAX} are allowed: send less",
            retryable=False,
        )
    return event.checked_properties(encoded)


def _text(template: str, scope: Scope, where: str) -> str:
    value = expressions.render(template, scope)
    if not isinstance(value, str):
        raise Reject(f"{where} must come out as text, not {type(value).__name__}: write it as ${{string(x)}}")
    return value


def _hops(scope: Scope) -> int:
    source = scope.variables["event"]
    hops = source.get("hops", 0) if isinstance(source, dict) else 0
    return hops if isinstance(hops, int) else 0

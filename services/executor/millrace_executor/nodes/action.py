"""Node type `action`: one call of a registered contract, as a signed POST to its endpoint, its answer as the output.

What was allowed is what is done: the contract must be the one the call was let in with, to the letter, and the
parameters those that were confirmed; anything else ends the step. The request carries `X-OpsIQ-Signature`
(`sha256=` and the hexadecimal HMAC-SHA256 over the raw body, under the action's secret), `X-OpsIQ-Timestamp` (in the
body too, so that it is signed), `X-OpsIQ-Idempotency-Key` and `X-OpsIQ-Delivery-Id`. Both ids are the run's: the same
on every attempt, so a receiver that heeds them does its work once.
"""

from collections.abc import Sequence

import msgspec
import orjson
import rfc8785

from millrace_core import actions, audit, egress, ids, limits
from millrace_core.event import iso_of
from millrace_core.messages import AuditEntry
from millrace_core.plans import ActionConfig
from millrace_core.record import Output
from millrace_executor.nodes.http import check_status, json_of
from millrace_executor.ports import Attempt, Done, Over, Registered, StepFailed, Tools


class _Context(msgspec.Struct):
    input: msgspec.Raw = msgspec.Raw(b"null")


_decode_config = msgspec.json.Decoder(ActionConfig).decode


async def run(attempt: Attempt, tools: Tools) -> Done:
    """Make the call that this step is."""
    step = attempt.step
    config = _decode_config(step.config)
    registered = _registered(config, step.account, tools)
    params = _params(config, attempt)
    now_ms = tools.clock.now_ms()
    body = _body(config, step.run, params, now_ms)
    target = egress.check_url(registered.endpoint, tools.allow)
    answer = await tools.sender.send(
        target,
        account=step.account,
        head=egress.request_head("POST", target, _headers(registered, step.run, step.attempt, body, now_ms)),
        body=body,
        timeout_s=min(step.timeout_s, limits.ACTION_TIMEOUT_S_MAX),
        read_bytes_max=limits.STEP_OUTPUT_BYTES_MAX + 1,
    )
    check_status(answer)
    return Done(json_of(answer))


def told(over: Over) -> Sequence[Output]:
    """The attempt in the audit, with its result. A repeat of the attempt says the same under the same id."""
    step = over.step
    try:
        config = _decode_config(step.config)
        params = msgspec.json.decode(step.context, type=_Context).input
    except msgspec.DecodeError:
        return ()
    entry = AuditEntry(
        id=ids.derived_id(ids.AUDIT, ids.time_ms_of(step.run), "executed", step.run, str(step.attempt)),
        account=step.account,
        at=over.at_ms,
        kind="action.executed",
        actor=config.confirmed_by or config.actor,
        role=config.role,
        action=config.name,
        version=config.version,
        run=step.run,
        confirmation=config.confirmation,
        outcome="failed" if over.done is None else "completed",
        error=over.error,
        duration_ms=over.duration_ms,
        params=params,
        result=msgspec.Raw(b"null" if over.done is None else over.done.output),
    )
    return (audit.to_output(entry),)


def _registered(config: ActionConfig, account: str, tools: Tools) -> Registered:
    registered = tools.registry.get(account, config.action)
    if registered is None:
        raise StepFailed("action_gone", f"the action {config.name} is not registered any more", retryable=False)
    if (registered.name, registered.digest) != (config.name, config.digest):
        raise StepFailed(
            "contract_changed",
            f"the contract of {config.name} is not the one that this call was let in with: ask for it again",
            retryable=False,
        )
    return registered


def _params(config: ActionConfig, attempt: Attempt) -> bytes:
    """The run's input, which must be what the call was let in with."""
    given = attempt.scope.variables["input"]
    params = rfc8785.dumps(given)
    if actions.arguments_hash(attempt.step.account, config.name, config.digest, params) != config.arguments_hash:
        raise StepFailed("arguments_changed", "the parameters are not those of the call", retryable=False)
    return params


def _body(config: ActionConfig, run: str, params: bytes, now_ms: int) -> bytes:
    actor = {"key": config.actor, "role": config.role}
    return orjson.dumps(
        {
            "id": run,
            "action": config.name,
            "version": config.version,
            "params": orjson.Fragment(params),
            "actor": actor,
            "confirmation": None
            if config.confirmation is None
            else {"id": config.confirmation, "confirmed_by": config.confirmed_by},
            "timestamp": iso_of(now_ms),
        }
    )


def _headers(registered: Registered, run: str, attempt: int, body: bytes, now_ms: int) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "accept": "application/json",
        "user-agent": "Millrace",
        "x-opsiq-action": registered.name,
        "x-opsiq-attempt": str(attempt),
        "x-opsiq-timestamp": str(now_ms // 1000),
        "x-opsiq-signature": actions.sign(registered.secret, body),
        "x-opsiq-idempotency-key": run,
        "x-opsiq-delivery-id": run,
    }

"""Node type `http`: one request, under the step's idempotency key, its answer as the output.

The URL, the headers and the body are templates. 2xx is success unless the config says what else it expects; 408, 429
and 5xx may be tried again, other answers may not. The key is the same on every repeat of an attempt, so a receiver
that heeds `Idempotency-Key` does its work once though a crash sends the request twice. A credential is looked up by the
name that the config has for it when the request is made, and masked in what came back.
"""

from typing import Any

import msgspec
import orjson

from millrace_core import egress, expressions, limits
from millrace_core.errors import Reject
from millrace_core.outgoing_credentials import Credential, applied, masked
from millrace_core.plans import HttpConfig
from millrace_executor.nodes.templates import template_of
from millrace_executor.ports import Attempt, Done, StepFailed, Tools
from millrace_runtime.egress import Answer

IDEMPOTENCY_KEY = "idempotency-key"
_OURS = frozenset({IDEMPOTENCY_KEY})
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_TRY_AGAIN = frozenset({408, 425, 429})
_decode_config = msgspec.json.Decoder(HttpConfig).decode


async def run(attempt: Attempt, tools: Tools) -> Done:
    """Send the request this step describes."""
    step = attempt.step
    config = _decode_config(step.config)
    target = egress.check_url(_text(config.url, attempt, "url"), tools.allow)
    headers = {name.lower(): _text(value, attempt, f"headers.{name}") for name, value in config.headers.items()}
    egress.check_headers(headers, ours=_OURS)
    body = _body(config, attempt, headers)
    headers.setdefault("accept", "*/*")
    headers.setdefault("user-agent", "Millrace")
    credential = None if config.credential is None else await tools.credentials.get(step.account, config.credential)
    if credential is not None:
        target, headers = applied(credential, target, headers)
    head = egress.request_head(config.method, target, {**headers, IDEMPOTENCY_KEY: step.key})
    answer = await tools.sender.send(
        target,
        account=step.account,
        head=head,
        body=body,
        timeout_s=min(step.timeout_s, limits.STEP_TIMEOUT_S_MAX),
        read_bytes_max=limits.STEP_OUTPUT_BYTES_MAX + 1,
    )
    if credential is not None:
        answer = _masked(credential, answer)
    check_status(answer, template_of(config.expect))
    return Done(_output(answer))


def _masked(credential: Credential, answer: Answer) -> Answer:
    """The answer of one who repeats what he was sent, without the credential."""
    headers = [(name, masked(credential, value)) for name, value in answer.headers]
    return Answer(answer.status, headers, masked(credential, answer.body), answer.is_cut)


def _text(template: str, attempt: Attempt, where: str) -> str:
    value = expressions.render(template, attempt.scope)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Reject(f'{where} must come out as text, not {type(value).__name__}: write it as "…${{string(x)}}…"')
    return str(value)


def _body(config: HttpConfig, attempt: Attempt, headers: dict[str, str]) -> bytes:
    """The request's body; sets its content-type where the config does not. Text goes as it is, the rest as JSON."""
    if config.body is None or config.method in _WITHOUT_BODY:
        return b""
    value = expressions.render(template_of(config.body), attempt.scope)
    if isinstance(value, str):
        headers.setdefault("content-type", "text/plain; charset=utf-8")
        return value.encode("utf-8", "replace")
    headers.setdefault("content-type", "application/json")
    return msgspec.json.encode(value)


def check_status(answer: Answer, expected: Any = None) -> None:
    """Raises StepFailed unless the status is 2xx, or what is expected: one, or one of a list."""
    status = answer.status
    if expected is None:
        if 200 <= status < 300:
            return
    elif status in (expected if isinstance(expected, list) else [expected]):
        return
    retryable = status in _TRY_AGAIN or status >= 500
    if 300 <= status < 400:
        advice = "redirects are not followed: give the final URL"
    elif retryable:
        advice = "it is tried again while attempts are left"
    else:
        advice = "correct the request, or name the status in `expect`"
    said = answer.body[:200].decode("utf-8", "replace").strip()
    raise StepFailed(
        f"http_{status}", f"the answer was {status}; {advice}" + (f". It said: {said}" if said else ""),
        retryable=retryable,
    )  # fmt: skip


def _output(answer: Answer) -> bytes:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
    body = json_of(answer)
    return b'{"status":%d,"headers":%b,"body":%b}' % (answer.status, msgspec.json.encode(headers), body)


def json_of(answer: Answer) -> bytes:
    """The body as JSON: its own bytes when it is JSON and says so, else as text. Raises StepFailed when it is too
    large."""
    if answer.is_cut or len(answer.body) > limits.STEP_OUTPUT_BYTES_MAX:
        raise StepFailed(
            "output_too_large",
            f"the answer's body is over {limits.STEP_OUTPUT_BYTES_MAX} bytes: ask for less, or for a reference to it",
            retryable=False,
        )
    if "json" in (answer.header(b"content-type") or "") and answer.body:
        try:
            orjson.loads(answer.body)
            return answer.body.strip()
        except orjson.JSONDecodeError:
            pass
    return msgspec.json.encode(answer.body.decode("utf-8", "replace") if answer.body else None)

"""One record of steps: its result, whatever its node does."""

import asyncio
import json
from typing import Any

import pytest

from millrace_core import egress, limits
from millrace_core.clock import ManualClock
from millrace_core.errors import Reject
from millrace_core.messages import Raw, Step, StepResult, decode, encode_with_payload
from millrace_core.record import Output, Written, header, payload_bytes
from millrace_executor.nodes import NODES
from millrace_executor.ports import Attempt, Done, StepFailed, Tools
from millrace_executor.worker import Executor
from millrace_runtime.egress import Answer, OutgoingFailed
from tests.support.dispatching import Meter

RUN = "exec_018f0000000070008000000000000001"


class Sender:
    """Answers 200 with a JSON body."""

    async def send(self, target: egress.Target, **_more: Any) -> Answer:
        return Answer(200, [(b"content-type", b"application/json")], b'{"ok": true}')


def asked(type: str = "node", config: Any = None, *, timeout_s: float = 30.0, context: bytes = b"{}") -> Written:
    step = Step(
        run=RUN, account="acc", node="n1", attempt=2, type=type, key=f"{RUN}/n1/2", timeout_s=timeout_s,
        config=Raw(json.dumps(config or {}).encode()), context=Raw(context),
    )  # fmt: skip
    value, start = encode_with_payload(step, step.context)
    headers = (("account", b"acc"), ("id", RUN.encode()), ("p", start), ("control", b"9"), ("traceparent", b"00-1"))
    return Written("millrace.steps.v1", 1, 5, 1_000, RUN.encode(), value, headers)


async def result_of(node: Any = None, record: Written | None = None) -> tuple[StepResult, list[Output], Meter]:
    meter = Meter()
    nodes = NODES if node is None else {"node": node}
    executor = Executor(nodes=nodes, tools=Tools(Sender(), ManualClock()), meter=meter)
    *others, output = await executor.work(record or asked())
    assert output.topic == "step-results"
    assert output.key == RUN.encode()
    assert dict(output.headers)["source"] == b"millrace.steps.v1:1:5"
    assert dict(output.headers)["control"] == b"9"
    result = decode(output.value, StepResult)
    as_read = Written("step-results", 0, 0, 0, output.key, output.value, output.headers)
    assert payload_bytes(as_read) == bytes(result.output)
    assert header(as_read, "account") == b"acc"
    assert (result.run, result.node, result.attempt) == (RUN, "n1", 2)
    return result, others, meter


async def test_an_output_is_passed_on_byte_for_byte() -> None:
    async def node(_attempt: Attempt, _tools: Tools) -> Done:
        return Done(b'{"a":1e2,"a":1}')

    result, _, meter = await result_of(node)
    assert (bytes(result.output), result.error) == (b'{"a":1e2,"a":1}', None)
    assert meter.outcomes == ["completed"]


async def test_what_a_node_emits_is_written_with_the_result() -> None:
    config = {"provider": "p", "name": "n"}
    result, (event,), _ = await result_of(None, asked("publish", config))
    assert event.topic == "events"
    assert json.loads(bytes(result.output))["identifier"] == "e:p/n"


async def test_http_end_to_end() -> None:
    result, _, _ = await result_of(None, asked("http", {"url": "https://e.com/"}))
    assert json.loads(bytes(result.output))["body"] == {"ok": True}


@pytest.mark.parametrize(
    ("raised", "code", "retryable"),
    [
        (StepFailed("http_500", "no", retryable=True), "http_500", True),
        (StepFailed("http_404", "no", retryable=False), "http_404", False),
        (OutgoingFailed("connect_failed", "no"), "connect_failed", True),
        (OutgoingFailed("timeout", "no"), "timeout", True),
        (Reject("the URL is wrong"), "invalid_config", False),
        (ValueError("no"), "invalid_config", False),
        (RecursionError("no"), "invalid_config", False),
    ],
)
async def test_what_goes_wrong_is_an_error_with_a_code(raised: Exception, code: str, retryable: bool) -> None:
    async def node(_attempt: Attempt, _tools: Tools) -> Done:
        raise raised

    result, _, meter = await result_of(node)
    assert result.error is not None
    assert (result.error.code, result.error.retryable, bytes(result.output)) == (code, retryable, b"null")
    assert result.error.message
    assert meter.outcomes == ["failed"]


async def test_a_step_that_takes_too_long_is_ended() -> None:
    async def node(_attempt: Attempt, _tools: Tools) -> Done:
        await asyncio.Event().wait()
        raise AssertionError

    result, _, _ = await result_of(node, asked(timeout_s=0.01))
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("timeout", True)


async def test_an_output_that_is_too_large_is_an_error() -> None:
    async def node(_attempt: Attempt, _tools: Tools) -> Done:
        return Done(b'"' + b"x" * limits.STEP_OUTPUT_BYTES_MAX + b'"')

    result, _, _ = await result_of(node)
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("output_too_large", False)


async def test_a_type_nobody_knows_says_which_are_known() -> None:
    result, _, _ = await result_of(None, asked("teleport"))
    assert result.error is not None
    assert result.error.code == "unknown_node_type"
    assert "http, publish, transform" in result.error.message


@pytest.mark.parametrize("type", ["http", "transform", "publish"])
@pytest.mark.parametrize("config", [[], "x", {"nonsense": 1}, {}, {"url": 5}, {"value": "${"}])
async def test_a_config_that_cannot_be_used_is_an_error(type: str, config: Any) -> None:
    result, _, _ = await result_of(None, asked(type, config))
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("invalid_config", False)


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"[]", b'{"run":1}', b"{" * 10_000])
async def test_a_record_that_is_no_step_is_rejected(value: bytes | None) -> None:
    executor = Executor(nodes=NODES, tools=Tools(Sender(), ManualClock()), meter=Meter())
    record = Written("steps", 0, 1, 0, None, value)
    assert executor.lane(record).account == ""
    with pytest.raises(Reject):
        await executor.work(record)

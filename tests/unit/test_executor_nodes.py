"""The node types, without lanes and without a network: what a step sends, makes and says when it fails."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from millrace_core import egress, limits
from millrace_core.clock import ManualClock
from millrace_core.errors import Reject
from millrace_core.expressions import Scope
from millrace_core.messages import Event, Raw, Step, decode
from millrace_core.record import Written
from millrace_core.runs import LAST_WORDS
from millrace_executor.nodes import NODES
from millrace_executor.ports import Attempt, Done, StepFailed, Tools
from millrace_runtime.egress import Answer

RUN = "exec_018f0000000070008000000000000001"
CONTEXT: dict[str, Any] = {
    "input": {"order": {"id": 7, "name": "ä b", "total": 1.5}, "tags": ["x", "y"]},
    "event": {"id": "evt_1", "identifier": "e:shop/order", "received_at": 1},
    "steps": {"first": {"status": 200}},
    "previous": {"status": 200},
}


class FakeSender:
    """Answers what it is told and keeps what was sent."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.sent: list[tuple[egress.Target, bytes, bytes, str]] = []

    async def send(
        self,
        target: egress.Target,
        *,
        account: str,
        head: bytes,
        body: bytes = b"",
        timeout_s: float,
        read_bytes_max: int,
    ) -> Answer:
        assert timeout_s > 0
        assert read_bytes_max > limits.STEP_OUTPUT_BYTES_MAX
        self.sent.append((target, head, body, account))
        return self.answer


def step_of(type: str, config: Any, *, attempt: int = 1) -> Step:
    return Step(
        run=RUN, account="acc", node="n1", attempt=attempt, type=type, key=f"{RUN}/n1/{attempt}", timeout_s=30.0,
        config=Raw(json.dumps(config).encode()), context=Raw(json.dumps(CONTEXT).encode()),
    )  # fmt: skip


def run(
    type: str, config: Any, *, sender: FakeSender | None = None, context: Any = CONTEXT, at_ms: int = 1_000
) -> Done:
    attempt = Attempt(step_of(type, config), Written("steps", 0, 5, at_ms, b"k", b""), Scope(context))
    tools = Tools(sender or FakeSender(Answer(200)), ManualClock())
    made: Callable[..., Any] = NODES[type]
    return asyncio.run(made(attempt, tools))  # type: ignore[no-any-return]


def http(config: Any, answer: Answer | None = None) -> tuple[Any, str, dict[str, str], bytes]:
    """Output, request line, headers, body."""
    sender = FakeSender(answer or Answer(200))
    done = run("http", config, sender=sender)
    _target, head, body, account = sender.sent[0]
    assert account == "acc"
    line, *rest = head.decode().split("\r\n")
    headers = dict(part.split(": ", 1) for part in rest if part)
    return json.loads(done.output), line, headers, body


def test_every_type_a_plan_may_name_has_a_node() -> None:
    assert set(NODES) == {"http", "transform", "condition", "publish", "action", LAST_WORDS}


# ── http ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_http_renders_url_headers_and_body_and_carries_the_idempotency_key() -> None:
    _, line, headers, body = http(
        {
            "url": "https://api.example.com/orders/${input.order.id}?t=${input.tags[0]}",
            "method": "PUT",
            "headers": {"X-Name": "n-${input.order.id}"},
            "body": {"total": "${input.order.total}", "name": "${input.order.name}!", "list": ["${previous.status}"]},
        }
    )
    assert line == "PUT /orders/7?t=x HTTP/1.1"
    assert headers["idempotency-key"] == f"{RUN}/n1/1"
    assert headers["x-name"] == "n-7"
    assert headers["content-type"] == "application/json"
    assert headers["host"] == "api.example.com"
    assert json.loads(body) == {"total": 1.5, "name": "ä b!", "list": [200]}


def test_http_sends_text_as_text_and_get_without_a_body() -> None:
    _, _, headers, body = http({"url": "https://e.com/", "body": "hello ${input.order.name}"})
    assert (headers["content-type"], body) == ("text/plain; charset=utf-8", "hello ä b".encode())
    _, line, headers, body = http({"url": "https://e.com/", "method": "GET", "body": {"a": 1}})
    assert line.startswith("GET ")
    assert body == b""
    assert "content-type" not in headers


def test_http_gives_json_as_json_byte_for_byte_and_anything_else_as_text() -> None:
    raw = b'{"big": 12345678901234567890123, "exp": 1e2, "twice": 1, "twice": 2}'
    sender = FakeSender(Answer(201, [(b"Content-Type", b"application/json"), (b"X-A", b"1")], raw))
    done = run("http", {"url": "https://e.com/"}, sender=sender)
    assert raw in done.output
    assert json.loads(done.output)["status"] == 201
    assert json.loads(done.output)["headers"]["x-a"] == "1"
    for headers, body, expected in (
        ([(b"content-type", b"application/json")], b"{broken", "{broken"),
        ([], b'{"a":1}', '{"a":1}'),
        ([], b"\xff", "�"),
        ([], b"", None),
    ):
        output, *_ = http({"url": "https://e.com/"}, Answer(200, headers, body))
        assert output["body"] == expected


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(301, False), (400, False), (401, False), (404, False), (409, False), (422, False), (408, True), (429, True),
     (500, True), (502, True), (503, True), (599, True)],
)  # fmt: skip
def test_http_an_answer_that_is_not_2xx_is_an_error_with_a_code(status: int, retryable: bool) -> None:
    with pytest.raises(StepFailed) as failed:
        http({"url": "https://e.com/"}, Answer(status, [], b"why it is so"))
    error = failed.value.error
    assert (error.code, error.retryable) == (f"http_{status}", retryable)
    assert "why it is so" in error.message


def test_http_may_expect_another_status() -> None:
    output, *_ = http({"url": "https://e.com/", "expect": [404, 200]}, Answer(404))
    assert output["status"] == 404
    with pytest.raises(StepFailed):
        http({"url": "https://e.com/", "expect": 201}, Answer(200))


def test_http_an_answer_that_is_too_large_is_an_error() -> None:
    for answer in (Answer(200, [], b"x" * 10, is_cut=True), Answer(200, [], b"x" * (limits.STEP_OUTPUT_BYTES_MAX + 1))):
        with pytest.raises(StepFailed) as failed:
            http({"url": "https://e.com/"}, answer)
        assert failed.value.error.code == "output_too_large"
        assert not failed.value.error.retryable


@pytest.mark.parametrize(
    "config",
    [
        {"url": "http://127.0.0.1/"},
        {"url": "http://${input.tags[0]}.1/"},
        {"url": "https://e.com/${input.order.name}"},
        {"url": "https://e.com/${input.nothing}"},
        {"url": "https://e.com/${input.tags}"},
        {"url": "https://e.com/", "headers": {"Idempotency-Key": "mine"}},
        {"url": "https://e.com/", "headers": {"x": "a\r\nb"}},
        {"url": "https://e.com/", "headers": {"content-length": "1"}},
    ],
)
def test_http_a_request_that_may_not_be_sent_is_refused(config: Any) -> None:
    sender = FakeSender(Answer(200))
    with pytest.raises(Reject):
        run("http", config, sender=sender)
    assert sender.sent == []


# ── transform ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_transform_makes_data_from_data() -> None:
    assert json.loads(run("transform", {"expression": "input.order.total * 2.0"}).output) == 3.0
    made = run(
        "transform", {"value": {"id": "${input.order.id}", "text": "no ${input.order.id}", "first": "${steps.first}"}}
    )
    assert json.loads(made.output) == {"id": 7, "text": "no 7", "first": {"status": 200}}
    assert json.loads(run("transform", {"value": None}).output) is None


def test_transform_an_expression_that_fails_is_refused_with_its_reason() -> None:
    with pytest.raises(Reject, match="input\\.nothing"):
        run("transform", {"expression": "input.nothing"})
    with pytest.raises(Reject):
        run("transform", {})


# ── publish ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def published(config: Any, *, context: Any = CONTEXT, at_ms: int = 1_700_000_000_000) -> tuple[Event, Any]:
    done = run("publish", config, context=context, at_ms=at_ms)
    (output,) = done.emits
    assert output.topic == "events"
    return decode(output.value, Event), json.loads(done.output)


PUBLISH = {"provider": "shop", "name": "paid", "properties": {"order": "${input.order.id}", "all": "${input}"}}


def test_publish_makes_the_same_event_on_every_repeat() -> None:
    (one, said), (two, _) = published(PUBLISH), published(PUBLISH)
    assert one.id == two.id == said["id"]
    assert one.unique_key == two.unique_key == f"step/{RUN}/n1/1"
    assert one.identifier == said["identifier"] == "e:shop/paid"
    assert json.loads(bytes(one.properties)) == {"order": 7, "all": CONTEXT["input"]}
    assert one.account == "acc"
    assert one.hops == 1


def test_publish_counts_hops_and_breaks_circles() -> None:
    def context(hops: int) -> Any:
        return {**CONTEXT, "event": {**CONTEXT["event"], "hops": hops}}

    assert published(PUBLISH, context=context(31))[0].hops == 32
    with pytest.raises(StepFailed) as failed:
        published(PUBLISH, context=context(32))
    assert failed.value.error.code == "too_many_hops"
    assert published(PUBLISH, context={**CONTEXT, "event": None})[0].hops == 1


def test_publish_without_properties_and_with_an_ordering_key() -> None:
    event, _ = published({"provider": "p", "name": "n", "ordering_key": "${string(input.order.id)}"})
    assert (bytes(event.properties), event.ordering_key) == (b"{}", "7")


@pytest.mark.parametrize(
    "config",
    [
        {"provider": "bad provider", "name": "n"},
        {"provider": "p", "name": "${input.nothing}"},
        {"provider": "p", "name": "${input.order}"},
        {"provider": "p", "name": "n", "properties": [1]},
        {"provider": "p", "name": "n", "properties": "${input.tags}"},
        {"provider": "p", "name": "n", "ordering_key": "x" * 300},
    ],
)
def test_publish_refuses_what_the_gateway_would_refuse(config: Any) -> None:
    with pytest.raises(Reject):
        published(config)


def test_publish_an_event_that_is_too_large_is_an_error() -> None:
    with pytest.raises(StepFailed) as failed:
        published({"provider": "p", "name": "n", "properties": {"x": "y" * (limits.BODY_BYTES_MAX + 1)}})
    assert failed.value.error.code == "properties_too_large"


# ── condition ───────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("expression", "branch"),
    [("input.order.total > 1.0", "true"), ("input.order.id == 8", "false"), ("input.tags[0]", "x")],
)
def test_condition_names_its_branch(expression: str, branch: str) -> None:
    assert json.loads(run("condition", {"expression": expression}).output) == {"branch": branch}


@pytest.mark.parametrize("expression", ["input.order.id", "input.nothing", "'" + "x" * 65 + "'"])
def test_condition_refuses_what_is_no_branch(expression: str) -> None:
    with pytest.raises(Reject):
        run("condition", {"expression": expression})


# ── last words of a workflow's run ──────────────────────────────────────────────────────────────────────────────────
def last_words(said: Any, *, hops: int = 0) -> Event:
    (output,) = run(LAST_WORDS, {}, context={"event": {**CONTEXT["event"], "hops": hops}, "previous": said}).emits
    return decode(output.value, Event)


def test_last_words_are_an_event_once_and_one_hop_further() -> None:
    one, two = last_words({"execution_id": RUN}, hops=3), last_words({"execution_id": RUN}, hops=3)
    assert (one.identifier, one.hops, one.unique_key) == ("e:workflows/workflow.executed", 4, f"step/{RUN}/n1/1")
    assert (one.id, bytes(one.properties)) == (two.id, b'{"execution_id":"%b"}' % RUN.encode())
    with pytest.raises(StepFailed):
        last_words({}, hops=32)


def test_an_output_that_no_event_may_hold_is_left_out_of_the_last_words() -> None:
    deep: Any = 1
    for _ in range(limits.JSON_DEPTH_MAX + 1):
        deep = [deep]
    assert json.loads(bytes(last_words({"status": "completed", "output": deep}).properties)) == {
        "status": "completed",
        "output": None,
    }

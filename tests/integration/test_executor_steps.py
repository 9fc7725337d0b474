"""The executor as its wiring makes it, on a real broker, calling real servers: each step has its result."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from millrace_core.clock import SystemClock
from millrace_core.keyring import KeyRing, credential_value, new_ring_entry
from millrace_core.messages import (
    CredentialControl,
    Event,
    Raw,
    Step,
    StepResult,
    decode,
    encode,
    encode_with_payload,
)
from millrace_core.record import ACCOUNT, ID, PAYLOAD, Output, header
from millrace_executor.settings import ExecutorSettings
from millrace_executor.wiring import wire
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.reader import read_all
from millrace_kafka.transaction import Transactions
from millrace_runtime.metrics import Metrics, MetricsObserver
from millrace_runtime.service import Context
from tests.support.receiver import Request, answers, answers_status, receiving
from tests.support.waiting import eventually

RING = new_ring_entry("k1")
CONTEXT = {"input": {"n": 7, "tags": ["a"]}, "event": None, "steps": {}, "previous": None}


def step_of(n: int, type: str, config: Any, *, timeout_s: float = 5.0) -> Step:
    run = f"exec_{n:032x}"
    return Step(
        run=run,
        account="acc_1",
        node="n1",
        attempt=1,
        type=type,
        key=f"{run}/n1/1",
        timeout_s=timeout_s,
        config=Raw(json.dumps(config).encode()),
        context=Raw(json.dumps(CONTEXT).encode()),
    )


class World:
    """`steps`, as an orchestrator would write them, and what came back."""

    def __init__(self, cluster: Cluster, writer: Transactions) -> None:
        self.cluster = cluster
        self.writer = writer

    async def ask(self, *steps: Step) -> None:
        outputs = []
        for step in steps:
            value, start = encode_with_payload(step, step.context)
            headers = ((ACCOUNT, step.account.encode()), (ID, step.run.encode()), (PAYLOAD, start))
            outputs.append(Output("steps", step.run.encode(), value, headers))
        await self.put(*outputs)

    async def put(self, *outputs: Output) -> None:
        await self.writer.commit([self.writer.place(output) for output in outputs], {})

    async def results(self, count: int, *, timeout_s: float = 20) -> dict[str, StepResult]:
        async def enough() -> dict[str, StepResult]:
            found = [decode(read.value, StepResult) for read in await read_all(self.cluster, ["step-results"])]
            assert len(found) >= count, f"{len(found)} of {count} results"
            return {one.run: one for one in found}

        return await eventually(enough, timeout_s=timeout_s, every_s=0.05)


@pytest.fixture
async def world(cluster: Cluster) -> AsyncIterator[World]:
    await create_topics(cluster, partitions=2)
    writer = Transactions(cluster, transactional_id=cluster.transactional_id("test"), group="orchestrator")
    await writer.start()
    yield World(cluster, writer)
    await writer.discard()


@asynccontextmanager
async def executing(world: World, *, clean: bool = True) -> AsyncIterator[Context]:
    """An executor that is ready; ends with the block: drained, or (not `clean`) as if killed."""
    settings = ExecutorSettings(
        kafka=world.cluster.bootstrap,
        namespace=world.cluster.namespace,
        instance="one",
        egress_allow="127.0.0.0/8",
        key_ring=SecretStr(RING),
    )
    log, metrics = structlog.get_logger(), Metrics()
    context = Context(
        name="executor",
        instance="one",
        clock=SystemClock(),
        log=log,
        metrics=metrics,
        observer=MetricsObserver(metrics, log),
    )
    workers = await wire(settings, context)
    running = [asyncio.ensure_future(worker(context.stop)) for worker in workers.values()]
    context.health.started()
    try:
        await eventually(lambda: not context.health.reasons(), timeout_s=20)
        yield context
    finally:
        if clean:
            context.stop.set()
            await asyncio.wait_for(asyncio.gather(*running), 25)
        else:
            for one in running:
                one.cancel()
            await asyncio.wait(running)
        await context.stack.aclose()


async def test_each_type_of_node_gives_its_result(world: World) -> None:
    async with receiving(
        answers_status(200, headers="content-type: application/json\r\n", body=b'{"ok":1e2}')
    ) as server:
        async with executing(world):
            await world.ask(
                step_of(1, "http", {"url": server.url("/${input.n}"), "body": {"tag": "${input.tags[0]}"}}),
                step_of(2, "transform", {"expression": "input.n + 1"}),
                step_of(3, "publish", {"provider": "p", "name": "n", "properties": {"n": "${input.n}"}}),
                step_of(4, "teleport", {}),
            )
            results = await world.results(4)
        (request,) = server.requests
    by_number = {int(run[5:], 16): result for run, result in results.items()}
    assert request.line == "POST /7 HTTP/1.1"
    assert request.headers["idempotency-key"] == step_of(1, "http", {}).key
    assert json.loads(request.body) == {"tag": "a"}
    assert b'"body":{"ok":1e2}' in bytes(by_number[1].output)
    assert bytes(by_number[2].output) == b"8"
    (event,) = [decode(read.value, Event) for read in await read_all(world.cluster, ["events"])]
    assert json.loads(bytes(by_number[3].output)) == {"id": event.id, "identifier": "e:p/n"}
    assert json.loads(bytes(event.properties)) == {"n": 7}
    assert by_number[4].error is not None
    assert by_number[4].error.code == "unknown_node_type"


async def hangs(_request: Request, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def test_every_way_a_server_fails_is_a_result(world: World) -> None:
    async with (
        receiving(hangs) as hanging,
        receiving(answers(b"garbage\r\n\r\n")) as garbled,
        receiving(answers_status(503)) as busy,
        receiving(answers_status(404)) as missing,
        receiving(answers_status(200, body=b"x" * 300_000)) as large,
        executing(world),
    ):
        cases = [
            (hanging.url(), "timeout", True),
            (garbled.url(), "bad_response", True),
            (busy.url(), "http_503", True),
            (missing.url(), "http_404", False),
            (large.url(), "output_too_large", False),
            ("http://127.0.0.1:1/", "connect_failed", True),
            ("http://10.0.0.1/", "invalid_config", False),
            ("http://localhost:1/${input.none}", "invalid_config", False),
        ]
        await world.ask(
            *(
                step_of(n, "http", {"url": url}, timeout_s=0.5 if code == "timeout" else 10.0)
                for n, (url, code, _) in enumerate(cases)
            )
        )
        results = await world.results(len(cases))
    for n, (_, code, retryable) in enumerate(cases):
        error = results[f"exec_{n:032x}"].error
        assert error is not None
        assert (error.code, error.retryable) == (code, retryable), n
        assert len(error.message) > 10


async def test_an_executor_that_dies_repeats_under_the_same_key(world: World) -> None:
    async with receiving(hangs) as server:
        async with executing(world, clean=False):
            await world.ask(*(step_of(n, "http", {"url": server.url()}, timeout_s=60) for n in range(10)))
            await eventually(lambda: len(server.requests) == 10, timeout_s=10)
        server.answer = answers_status(200)
        server.close_connections()
        async with executing(world):
            results = await world.results(10)
    assert all(result.error is None for result in results.values())
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert set(keys) == {step_of(n, "http", {}).key for n in range(10)}
    assert len(keys) == 20


async def test_garbage_is_parked_and_the_partition_goes_on(world: World) -> None:
    async with executing(world):
        await world.put(
            Output("steps", b"k", b"\xff", ()), Output("steps", b"k", b"{}", ()), Output("steps", None, None, ())
        )
        await world.ask(*(step_of(n, "transform", {"value": n}) for n in range(4)))
        results = await world.results(4)
    assert {bytes(result.output) for result in results.values()} == {b"0", b"1", b"2", b"3"}
    letters = await read_all(world.cluster, ["dead-letters"])
    assert len(letters) == 3
    assert all(header(letter, "dead-reason") for letter in letters)


async def test_a_step_has_the_credential_as_it_was_when_its_attempt_began_and_none_that_was_deleted(
    world: World,
) -> None:
    id, ring = f"cred_{7:032x}", KeyRing.parse(RING)
    control = ControlWriter(world.cluster)
    await control.start()

    async def put(version: int, value: str | None) -> None:
        held = None
        if value is not None:
            sealed = ring.seal(value, account="acc_1", name=credential_value(id))
            held = encode(
                CredentialControl(
                    account="acc_1", name="Slack", type="bearer", secret=sealed, where="header",
                    parameter="Authorization", prefix="Bearer ",
                )
            )  # fmt: skip
        await control.write([("credential", "acc_1", id, version, held)])

    values = [f"xoxb-token-{n}" for n in range(5)]
    async with receiving() as server, executing(world):
        for n, value in enumerate(values):
            # The step is asked for as soon as the change is on the log: the executor may not have read it yet.
            await put(n + 1, value)
            await world.ask(step_of(n, "http", {"url": server.url(), "credential": "Slack"}))
            await world.results(n + 1)
        await put(len(values) + 1, None)
        await world.ask(step_of(len(values), "http", {"url": server.url(), "credential": "Slack"}))
        results = await world.results(len(values) + 1)
    await control.stop()
    assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {one}" for one in values]
    error = results[f"exec_{len(values):032x}"].error
    assert error is not None
    assert error.code == "credential_missing"

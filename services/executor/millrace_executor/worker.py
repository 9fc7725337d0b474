"""What the executor does with one record of `steps`: run the attempt, and answer with its result.

At least once: a crash repeats the attempt with the same idempotency key, and the orchestrator takes the first result
of an attempt only. Whatever a node or the outside does wrong is an answer with a code and a message that says what to
do; a record that is no step is rejected. Lanes call `work`, many at once; an account's steps share the lanes fairly.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import msgspec
import orjson

from millrace_core import limits, record
from millrace_core.errors import Reject
from millrace_core.expressions import Scope
from millrace_core.messages import ErrorInfo, Raw, Step, StepResult, decode, encode_with_payload, null
from millrace_core.record import Output, Received
from millrace_executor.ports import Attempt, Done, Node, Over, StepFailed, Tools
from millrace_kafka.lanes import Lane
from millrace_runtime.egress import OutgoingFailed

RESULTS = "step-results"


class Meter(Protocol):
    """Counts attempts by node type and outcome, with their time. Must not block or raise."""

    def attempted(self, type: str, outcome: str, seconds: float) -> None: ...


class Executor:
    """Runs one attempt at a time, many at once."""

    def __init__(
        self,
        *,
        nodes: Mapping[str, Node],
        tools: Tools,
        meter: Meter,
        told: Mapping[str, Callable[[Over], Sequence[Output]]] = MappingProxyType({}),
    ) -> None:
        """`told` gives, by type of node, what is written beside an attempt's result."""
        self._told = told
        self._nodes = nodes
        self._tools = tools
        self._meter = meter

    def lane(self, asked_by: Received) -> Lane:
        """Steps of a run never wait for one another (the orchestrator sends the next when it may begin), so an
        account's steps are one unordered lane."""
        account = (record.header(asked_by, record.ACCOUNT) or b"").decode("utf-8", "replace")
        return Lane(account=account, key=None, concurrency=limits.LANES_IN_FLIGHT_MAX, ordered=False)

    async def work(self, asked_by: Received) -> Sequence[Output]:
        """Run the attempt this record asks for. Called by lanes; may be repeated; cancelling it leaves its outcome
        unknown, and the record not done."""
        step = decode(asked_by.value, Step)
        clock = self._tools.clock
        started_at, began = clock.now_ms(), clock.monotonic()
        done, error = await self._run(step, asked_by)
        seconds = clock.monotonic() - began
        self._meter.attempted(
            step.type if step.type in self._nodes else "unknown", "failed" if error else "completed", seconds
        )
        result = StepResult(
            run=step.run,
            account=step.account,
            node=step.node,
            attempt=step.attempt,
            started_at=started_at,
            duration_ms=round(seconds * 1000, 3),
            error=error,
            output=Raw(done.output) if done is not None else null(),
        )
        told = self._told.get(step.type)
        beside = () if told is None else told(Over(step, done, error, clock.now_ms(), result.duration_ms))
        return (*(done.emits if done is not None else ()), *beside, _output(asked_by, result))

    def parked(self, asked_by: Received, reason: str) -> Sequence[Output]:
        """What is written beside the dead letter of a record: its attempt's result, so that its run does not wait."""
        try:
            step = decode(asked_by.value, Step)
        except Reject:
            return ()
        return (_output(asked_by, self._failed(step, _error("dead_lettered", f"the step was parked: {reason}"))),)

    def _failed(self, step: Step, error: ErrorInfo) -> StepResult:
        now_ms = self._tools.clock.now_ms()
        return StepResult(
            run=step.run,
            account=step.account,
            node=step.node,
            attempt=step.attempt,
            started_at=now_ms,
            duration_ms=0.0,
            error=error,
        )

    async def _run(self, step: Step, asked_by: Received) -> tuple[Done | None, ErrorInfo | None]:
        """The one place where what went wrong becomes an error with a code."""
        node = self._nodes.get(step.type)
        if node is None:
            known = ", ".join(sorted(self._nodes))
            return None, _error("unknown_node_type", f"no executor knows the type {step.type!r}: use one of {known}")
        timeout_s = min(step.timeout_s, limits.STEP_TIMEOUT_S_MAX)
        try:
            async with asyncio.timeout(timeout_s):
                done = await node(Attempt(step, asked_by, _scope(step)), self._tools)
        except StepFailed as failed:
            return None, failed.error
        except OutgoingFailed as failed:
            return None, _error(failed.code, str(failed), retryable=True)
        except Reject as reject:
            return None, _error("invalid_config", str(reject))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return None, _error("invalid_config", f"the node's config cannot be used: {error}")
        except TimeoutError:
            message = f"the step did not end within {timeout_s:g} s: give it more time, or less to do"
            return None, _error("timeout", message, retryable=True)
        if len(done.output) > limits.STEP_OUTPUT_BYTES_MAX:
            message = f"the output has {len(done.output)} bytes, at most {limits.STEP_OUTPUT_BYTES_MAX} are kept"
            return None, _error("output_too_large", f"{message}: pass on less, or a reference to it")
        return done, None


def _scope(step: Step) -> Scope:
    loaded = orjson.loads(bytes(step.context))
    return Scope(loaded if isinstance(loaded, dict) else {})


def _error(code: str, message: str, *, retryable: bool = False) -> ErrorInfo:
    return ErrorInfo(code=code, message=message[: limits.ERROR_MESSAGE_CHARS_MAX], retryable=retryable)


def _output(asked_by: Received, result: StepResult) -> Output:
    value, start = encode_with_payload(result, result.output)
    headers = [
        (record.ACCOUNT, result.account.encode()),
        (record.ID, result.run.encode()),
        (record.SOURCE, record.source_of(asked_by)),
        (record.PAYLOAD, start),
    ]
    headers += [(name, value) for name, value in asked_by.headers if name in (record.CONTROL, record.TRACEPARENT)]
    return Output(RESULTS, result.run.encode(), value, tuple(headers))

"""The handler of `admissions`: what held runs and their ends ask of their subscriptions' flows, and the answers.

Exactly once per transaction of its processor. Its one input is written in the orchestrator's transactions, once each,
so it needs no memory of repeats. What is decided goes to `run-commands-tx` (a run begins, or never will) and to `run-
facts` (what it waits for). Flows are the control view's, at least as new as the match; a change alone is decided on in
the next turn. Its time is one that the broker confirms. Not here: the decisions (`admissions`), runs (`handlers`).
"""

from collections.abc import Iterable, Mapping, Sequence

from millrace_core import limits
from millrace_core.errors import Reject
from millrace_core.handling import State
from millrace_core.ids import time_ms_of
from millrace_core.messages import (
    AdmissionCommand,
    AdmitRun,
    AskAdmission,
    CancelAdmissions,
    RunWaiting,
    WaitReason,
    decode,
    encode,
    encode_with_payload,
)
from millrace_core.record import ACCOUNT, CONTROL, ID, PAYLOAD, TRACEPARENT, Output, Received
from millrace_orchestrator.admissions import Admissions, Flows, HeldBack, Said
from millrace_orchestrator.waiting import Headers

INPUTS = ("admissions",)


class AdmissionsHandler:
    """One partition's subscriptions. A TransactionalHandler: made anew, and loaded, for each life of the partition's
    task."""

    def __init__(self, flows: Flows, *, admissions: Admissions | None = None) -> None:
        self._admissions = Admissions(flows) if admissions is None else admissions

    def load(self, state: State, read_back: Iterable[Received]) -> None:
        self._admissions.load(state)

    def handle(self, record: Received, state: State, now_ms: int) -> Sequence[Output]:
        command = _parse(record)
        if isinstance(command, AskAdmission):
            said = self._admissions.ask(state, command, _passed_on(record), now_ms=now_ms)
            return [_written(each) for each in said]
        if isinstance(command, CancelAdmissions):
            self._admissions.cancel(state, command, now_ms=now_ms)
        else:
            self._admissions.release(state, command, now_ms=now_ms)
        return ()

    def due(self, state: State, now_ms: int, limit: int) -> Sequence[Output]:
        return [_written(each) for each in self._admissions.due(state, now_ms, limit)]

    def held(self) -> Mapping[WaitReason, HeldBack]:
        """Who waits, by what for (`Admissions.held`)."""
        return self._admissions.held()

    def next_due_ms(self) -> int | None:
        return self._admissions.next_due_ms()


def _parse(record: Received) -> AdmissionCommand:
    command: AdmissionCommand = decode(record.value, AdmissionCommand)  # type: ignore[arg-type]
    for name in (command.account, command.subscription):
        if not name or len(name) > limits.ID_CHARS_MAX or "/" in name:
            raise Reject(f"account and subscription have 1 to {limits.ID_CHARS_MAX} characters, and no slash")
    if len(command.key) > limits.FLOW_KEY_CHARS_MAX:
        raise Reject(f"a key has at most {limits.FLOW_KEY_CHARS_MAX} characters")
    if not isinstance(command, CancelAdmissions):
        time_ms_of(command.run)
    return command


def _passed_on(record: Received) -> Headers:
    return tuple(
        (name, value)
        for name, value in record.headers
        if name in (CONTROL, TRACEPARENT) and len(value) <= limits.HEADER_BYTES_MAX
    )


def _written(said: Said) -> Output:
    message, run = said.message, said.message.run.encode()
    headers = ((ACCOUNT, message.account.encode()), (ID, run), *said.headers)
    if isinstance(message, AdmitRun):
        value, at = encode_with_payload(message, message.input)
        return Output("run-commands-tx", run, value, (*headers, (PAYLOAD, at)))
    return Output("run-facts" if isinstance(message, RunWaiting) else "run-commands-tx", run, encode(message), headers)

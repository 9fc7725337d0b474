"""The orchestrator's handler: one record of a run's, through the pure decider, to facts, steps and timers.

Exactly once per transaction of its processor. The state of a live run is one entry of the task's state, forgotten
with the run's terminal fact. A start that comes again is dropped: by the live run itself, by the window over the
source offsets of `run-commands` (the matcher writes at least once), or, for a start that comes from no event, by its
id, kept for a day. That holds for a run that a flow holds back as well: every start comes by here first, so one whose
subscription gained or lost its flow before it was repeated is a repeat all the same. When a held one may begin is asked
on `admissions`. Not here: the answer (`admissions_handler`), what a run does next (`millrace_core.runs`), transactions
(`millrace_kafka`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isfinite

from millrace_core import limits
from millrace_core.errors import Reject
from millrace_core.handling import Parked, State
from millrace_core.id_memory import IdMemory
from millrace_core.ids import time_ms_of
from millrace_core.messages import (
    AdmissionCommand,
    AdmitRun,
    AskAdmission,
    CancelAdmissions,
    CancelMatches,
    ErrorInfo,
    Raw,
    RunBundled,
    RunCommand,
    RunEnded,
    RunFact,
    SetTimer,
    StartRun,
    Step,
    StepCompleted,
    StepResult,
    TimerCommand,
    decode,
    encode,
    encode_with_payload,
)
from millrace_core.record import (
    ACCOUNT,
    CONTROL,
    ID,
    PAYLOAD,
    SOURCE,
    TRACEPARENT,
    Output,
    Received,
    Source,
    header,
    parse_source,
    source_of,
    topic_name,
)
from millrace_core.runs import Command, Decision, RunState, decide, decode_state, encode_state, running, step_of
from millrace_core.seen import SourceWindow
from millrace_orchestrator.shares import Held, Shares

COMMANDS = "run-commands"
RESULTS = "step-results"
INPUTS = (COMMANDS, "run-commands-tx", RESULTS)
READ_BACK = (COMMANDS,)

_RUN = b"run/"
_ID = b"id/"
_SOURCE = b"source/"
# What came after the latest mark is always among what is read back.
MARK_EVERY_RECORDS = limits.READ_BACK_RECORDS_MAX // 4


Told = Callable[[str], None]
"""Told the outcome of each run that ends; again when its transaction was lost. Must not raise."""


class OrchestratorHandler:
    """One partition's runs. A TransactionalHandler: made anew, and loaded, for each life of the partition's task."""

    def __init__(
        self, *, shares: Shares | None = None, window: SourceWindow | None = None, ended: Told = lambda outcome: None
    ) -> None:
        self._shares = shares or Shares()
        self._told = ended
        self._window = SourceWindow() if window is None else window
        self._ids = IdMemory(_ID)
        self.live_runs = 0
        self._marks: dict[bytes, bytes] = {}
        self._mark_at = MARK_EVERY_RECORDS

    def load(self, state: State, read_back: Iterable[Received]) -> None:
        self._ids.load(state)
        alive = list(_running_by_account(state))
        self.live_runs = len(alive)
        self._shares.load(state, alive)
        count = 0
        for record in read_back:
            count += 1
            source, id = parse_source(header(record, SOURCE)), header(record, ID)
            if source is not None and id is not None:
                self._window.add(source, id.decode("utf-8", "replace"), record.offset)
        if count >= limits.READ_BACK_RECORDS_MAX:
            self._window.cut()
        self._marks = dict(state.scan(_SOURCE))
        for key, highest in self._marks.items():
            topic, _, partition = key[len(_SOURCE) :].decode().rpartition(":")
            self._window.known_until(topic, int(partition), int(highest))

    def handle(self, record: Received, state: State, now_ms: int) -> Sequence[Output]:
        outputs = self._handle(record, state, now_ms)
        if record.offset >= self._mark_at and topic_name(record.topic) == COMMANDS:
            self._mark(state)
            self._mark_at = record.offset + MARK_EVERY_RECORDS
        return outputs

    def _handle(self, record: Received, state: State, now_ms: int) -> Sequence[Output]:
        try:
            command = _parse(record)
        except Reject as reason:
            raise self._parked(record, str(reason), state, now_ms) from None
        if isinstance(command, CancelMatches):
            return self._passed_on(record, command)
        key = run_key(command.account, command.run)
        value = state.get(key)
        before = None if value is None else decode_state(value)
        if isinstance(command, StartRun):
            return self._start(record, command, key, before, state, now_ms)
        return self._apply(record, key, before, decide(before, command, now_ms), state)

    @property
    def held_steps(self) -> int:
        """How many wait for a place in their account's share."""
        return self._shares.held

    def due(self, state: State, now_ms: int, limit: int) -> Sequence[Output]:
        self._ids.forget_due(state, now_ms, limit)
        return ()

    def next_due_ms(self) -> int | None:
        return self._ids.next_due_ms()

    def _start(
        self, record: Received, start: StartRun, key: bytes, before: RunState | None, state: State, now_ms: int
    ) -> Sequence[Output]:
        # Only `run-commands` is written at least once; its twin has neither repeats nor a window.
        source = parse_source(header(record, SOURCE)) if topic_name(record.topic) == COMMANDS else None
        outputs: Sequence[Output] = ()
        if source is None:
            if before is None and not self._ids.knows(state, start.account, start.run, now_ms):
                outputs = self._apply(record, key, None, decide(None, start, now_ms), state)
                self._ids.remember(state, start.account, start.run, now_ms)
            return outputs
        verdict = self._window.check(source, start.run, record.offset)
        if before is None and verdict == "new":
            outputs = self._apply(record, key, None, decide(None, start, now_ms), state)
        elif before is None and verdict == "stale":
            ended = _stale(start, source, now_ms)
            self._tell_end([ended])
            outputs = [_written_fact(ended, _head(record, start.account, start.run))]
        self._window.add(source, start.run, record.offset)
        return outputs

    def _passed_on(self, record: Received, command: CancelMatches) -> Sequence[Output]:
        """An event that cancels goes on to the flow's owner, once: it is known by its source, like a start."""
        source = parse_source(header(record, SOURCE))
        is_new = source is None or self._window.check(source, command.run, record.offset) == "new"
        if source is not None:
            self._window.add(source, command.run, record.offset)
        if not is_new:
            return ()
        cancel = CancelAdmissions(
            account=command.account,
            subscription=command.subscription,
            event=command.event,
            key=command.key,
            partition=command.partition,
            offset=command.offset,
            at=command.at,
        )
        return [_written_admission(cancel, _head(record, command.account, command.run))]

    def _mark(self, state: State) -> None:
        """Keep how far each source partition was seen, now and then: one whose matcher stood still while the others
        went on lies further back than is read back, and its repeats would pass for new."""
        for (topic, partition), highest in self._window.highest().items():
            key, value = b"%b%b:%d" % (_SOURCE, topic.encode(), partition), b"%d" % highest
            if self._marks.get(key) != value:
                self._marks[key] = value
                state.put(key, value)

    def _parked(self, record: Received, reason: str, state: State, now_ms: int) -> Reject:
        """A start that cannot be read is its run's end, as far as its headers still name a run that never began."""
        account, run = header(record, ACCOUNT), header(record, ID)
        source = parse_source(header(record, SOURCE))
        if topic_name(record.topic) != COMMANDS or source is None or not account or not run or record.key != run:
            return Reject(reason)
        try:
            key, id, of = run_key(account.decode(), run.decode()), run.decode(), account.decode()
            time_ms_of(id)
        except (Reject, UnicodeDecodeError):
            return Reject(reason)
        if state.get(key) is not None or self._window.check(source, id, record.offset) != "new":
            return Reject(reason)
        error = ErrorInfo("dead_lettered", reason[: limits.ERROR_MESSAGE_CHARS_MAX], retryable=False)
        ended = RunEnded(run=id, account=of, at=now_ms, outcome="dead_lettered", error=error)
        self._tell_end([ended])
        return Parked(reason, [_written_fact(ended, _head(record, of, id))])

    def _apply(
        self, record: Received, key: bytes, before: RunState | None, decision: Decision, state: State
    ) -> Sequence[Output]:
        after = decision.state
        if after is None or not (decision.facts or decision.admissions):
            return ()
        head = _head(record, after.account, after.run)
        outputs = [_written_fact(fact, head) for fact in decision.facts]
        outputs += [_written_timer(timer, head) for timer in decision.timers]
        outputs += [_written_admission(message, head) for message in decision.admissions]
        if after.ended:
            self._tell_end(decision.facts)
            if before is not None:
                state.delete(key)
        else:
            state.put(key, encode_state(after))
        self.live_runs += (not after.ended) - (before is not None)
        self._share_out(before, decision, head, state, outputs)
        # Nobody awaits these, so they take nobody's share.
        outputs += [_written_step(step, head) for step in decision.told]
        return outputs

    def _tell_end(self, facts: Iterable[RunFact]) -> None:
        for fact in facts:
            if isinstance(fact, RunEnded):
                self._told(fact.outcome)

    def _share_out(
        self, before: RunState | None, decision: Decision, head: "_Head", state: State, outputs: list[Output]
    ) -> None:
        """Write the steps that may go out now: this run's new ones, and those that its ended ones make room for."""
        after = decision.state
        assert after is not None
        account, shares = after.account, self._shares
        still = running(after)
        for node, attempt in running(before).items() if before is not None else ():
            if still.get(node) != attempt:
                shares.settle(state, account, Held(after.run, node, attempt))
        # A step that was asked for in a turn that ended its run is nobody's any more.
        outputs += [
            _written_step(step, head)
            for step in decision.steps
            if not after.ended and shares.admit(state, account, Held(after.run, step.node, step.attempt))
        ]
        for held in shares.released(state, account):
            run = decode_state(state.get(run_key(account, held.run)) or b"")
            outputs.append(_written_step(step_of(run, held.node, held.attempt), _head_of(head, held.run)))


_Head = tuple[tuple[str, bytes], ...]


def run_key(account: str, run: str) -> bytes:
    """Where a live run stands in the task's state."""
    return b"%b%b/%b" % (_RUN, account.encode(), run.encode())


def _parse(record: Received) -> Command | CancelMatches:
    """The command a record carries. Raises Reject for whatever could not be decided, or not be written on."""
    if topic_name(record.topic) == RESULTS:
        command: Command | CancelMatches = _parse_result(record)
    else:
        command = _parse_command(record)
    if len(command.account) > limits.ID_CHARS_MAX or len(command.run) > limits.ID_CHARS_MAX:
        raise Reject(f"run and account have at most {limits.ID_CHARS_MAX} characters")
    time_ms_of(command.run)
    if record.key != command.run.encode():
        raise Reject("the record's key is not the run that its value names")
    return command


def _parse_result(record: Received) -> StepResult:
    result = decode(record.value, StepResult)
    if not isfinite(result.duration_ms):
        raise Reject("not a valid StepResult: duration_ms is no finite number")
    _check_text(result.output)
    return result


def _parse_command(record: Received) -> RunCommand:
    command: RunCommand = decode(record.value, RunCommand)  # type: ignore[arg-type]
    if isinstance(command, StartRun):
        _check_start(command)
    elif isinstance(command, AdmitRun):
        _check_text(command.input)
    elif isinstance(command, CancelMatches):
        _check_flow(command.subscription, command.key)
    return command


def _check_start(start: StartRun) -> None:
    event = start.event
    names = [start.subscription or "", *((event.id, event.identifier) if event is not None else ())]
    if any(len(name) > limits.ID_CHARS_MAX for name in names):
        raise Reject(f"subscription, event and identifier have at most {limits.ID_CHARS_MAX} characters")
    _check_text(start.input)
    for flow in (start.flow, start.account_flow):
        if flow is None:
            continue
        _check_flow(start.subscription or "", flow.key)
        if not all(0 <= number < 2**63 for number in (flow.priority, flow.partition, flow.offset, flow.at)):
            raise Reject("priority, partition, offset and time of a flow must be whole numbers from 0 to 2^63 - 1")


def _check_flow(subscription: str, key: str) -> None:
    if len(subscription) > limits.ID_CHARS_MAX or len(key) > limits.FLOW_KEY_CHARS_MAX:
        raise Reject(
            f"subscription and flow key have at most {limits.ID_CHARS_MAX} and {limits.FLOW_KEY_CHARS_MAX} characters"
        )


def _check_text(payload: Raw) -> None:
    # A payload is copied unread into steps and facts; what is no text would spoil them for every reader.
    try:
        bytes(payload).decode()
    except UnicodeDecodeError as error:
        raise Reject(f"the payload is no UTF-8: {error.reason}") from None


def _stale(start: StartRun, source: Source, now_ms: int) -> RunEnded:
    message = f"came again too late to be told from a repeat (source {source.topic}:{source.partition}:{source.offset})"
    error = ErrorInfo("stale", message, retryable=False)
    return RunEnded(run=start.run, account=start.account, at=now_ms, outcome="stale", error=error)


def _running_by_account(state: State) -> Iterator[tuple[str, int]]:
    for _, value in state.scan(_RUN):
        run = decode_state(value)
        yield run.account, len(running(run))


def _head(record: Received, account: str, run: str) -> _Head:
    """The headers of every output of this record; what it was decided on and traced by goes along."""
    head = [(ACCOUNT, account.encode()), (ID, run.encode()), (SOURCE, source_of(record))]
    head += [
        (name, value)
        for name, value in record.headers
        if name in (CONTROL, TRACEPARENT) and len(value) <= limits.HEADER_BYTES_MAX
    ]
    return tuple(head)


def _head_of(head: _Head, id: str) -> _Head:
    return (head[0], (ID, id.encode()), *head[2:])


def _written_fact(fact: RunFact, head: _Head) -> Output:
    run = head[1][1]
    if isinstance(fact, StepCompleted | RunEnded | RunBundled):
        value, at = encode_with_payload(fact, fact.input if isinstance(fact, RunBundled) else fact.output)
        return Output("run-facts", run, value, (*head, (PAYLOAD, at)))
    return Output("run-facts", run, encode(fact), head)


def _written_admission(message: AdmissionCommand, head: _Head) -> Output:
    """All that is asked of one flow stands in one partition: its totals have one owner."""
    key, route = f"{message.subscription}\x1f{message.key}".encode(), message.subscription.encode()
    if isinstance(message, AskAdmission):
        value, at = encode_with_payload(message, message.input)
        return Output("admissions", key, value, (*head, (PAYLOAD, at)), route)
    return Output("admissions", key, encode(message), head, route)


def _written_step(step: Step, head: _Head) -> Output:
    value, at = encode_with_payload(step, step.context)
    return Output("steps", head[1][1], value, (*head, (PAYLOAD, at)))


def _written_timer(timer: TimerCommand, head: _Head) -> Output:
    run, head = head[1][1], _head_of(head, timer.id)
    if isinstance(timer, SetTimer):
        value, at = encode_with_payload(timer, timer.record)
        return Output("timers-tx", run, value, (*head, (PAYLOAD, at)))
    return Output("timers-tx", run, encode(timer), head)

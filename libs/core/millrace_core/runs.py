"""The run decider: what happens next to a run, as two pure functions.

`decide(state, command, now)` says which facts a command makes true, and which steps and timers follow from them;
`evolve(state, fact)` is the state after a fact. The state a decision carries is always the fold of its facts over
`opened(start)`. A command that comes twice, late, or for another attempt makes nothing true; after its one terminal
fact a run makes nothing true at all. Steps, timers and keys have derived ids, so a repeat names the same things.

A run that a flow holds back is a state too: it asks to be admitted, by its subscription's flow first, then by its
account's, begins when it is told to, and says when it is over. When it may begin is not decided here (the
orchestrator's `admissions`).
Of a graph with branches every node ends or is skipped, for which there is a fact too; a join waits for no skipped node.
When a run of a workflow is over its last words are one step more, which nobody awaits: its executor publishes
`e:workflows/workflow.executed` (the events' topic has plain writers only, and this decides in transactions; what is
written with the run's end is asked for exactly once, and its key makes the event one however often it is done).
An attempt's own time limit is the executor's to keep (waiting in its queue must not count); the run's is a timer.
Not here: who remembers that a run has ended (the orchestrator's handler forgets the state and keeps the ids).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from millrace_core import limits
from millrace_core.errors import Reject
from millrace_core.event import iso_of
from millrace_core.ids import derived_id, time_ms_of, timer_id_of
from millrace_core.messages import (
    AbsorbRun,
    AdmitRun,
    AskAdmission,
    CancelRun,
    CancelTimer,
    ErrorInfo,
    EventRef,
    FlowPart,
    RefuseRun,
    ReleaseAdmission,
    RunBundled,
    RunEnded,
    RunFact,
    RunOutcome,
    RunStarted,
    RunWaiting,
    SetTimer,
    StartRun,
    Step,
    StepCompleted,
    StepFailed,
    StepResult,
    StepSkipped,
    StepStarted,
    TimerCommand,
    TimerFired,
    encode,
)
from millrace_core.plans import NO_VARIABLES, WHEN_ELSE, WHEN_FAILED, WHEN_SUCCEEDED, Graph, Node, remembered_graph_of
from millrace_core.retries import delay_ms, may_retry

Raw = msgspec.Raw
Command = StartRun | CancelRun | TimerFired | StepResult | AdmitRun | AbsorbRun | RefuseRun

RUNNING, WAITING, DONE, FAILED, SKIPPED = 1, 2, 3, 4, 5
LAST_WORDS = "workflow_ended"
"""The node type of the step that tells of a workflow's end. No plan can hold it."""
_NULL = b"null"
_NO_INPUT = Raw(_NULL)


class Progress(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a node stands; a node that has not begun has none. `behind` is the node that let a join of the impatient
    kind begin, `branch` what a condition came to."""

    status: int
    attempt: int
    behind: str = ""
    branch: str = ""


class FlowRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The flow that a run is told to begin by: it must hear of the run's end."""

    subscription: str
    key: str


class AccountFlow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The account's flow, which a run of `subscription` asks once its subscription's has let it go."""

    subscription: str | None
    part: FlowPart
    is_asked: bool


class RunState(msgspec.Struct, frozen=True, array_like=True):
    """A live run. What it was given stays as bytes (JSON), never parsed and never written anew.

    `kept_bytes` counts input and outputs; an output beyond STEP_CONTEXT_BYTES_MAX is counted but not kept, since no
    step could be given it: the state always fits its record."""

    run: str
    account: str
    plan: bytes
    input: bytes
    event: bytes
    nodes: dict[str, Progress] = {}
    outputs: dict[str, bytes] = {}
    kept_bytes: int = 0
    ended: bool = False
    flow: FlowRef | None = None
    held: bool = False
    account_flow: AccountFlow | None = None


class Decision(msgspec.Struct):
    """What a command came to: facts in order, then what they ask of others. `state` is the fold of the facts; `told`
    are last words of a run that has ended."""

    state: RunState | None
    facts: list[RunFact] = []
    steps: list[Step] = []
    timers: list[TimerCommand] = []
    admissions: list[AskAdmission | ReleaseAdmission] = []
    told: list[Step] = []


def encode_state(state: RunState) -> bytes:
    """The state as its changelog holds it."""
    return _encoder.encode(state)


def decode_state(value: bytes) -> RunState:
    """The state behind its changelog value."""
    return _decoder.decode(value)


def opened(start: StartRun) -> RunState:
    """The run before its first fact."""
    event = _NULL if start.event is None else msgspec.json.encode(start.event)
    input = bytes(start.input)
    flow = None
    if start.flow is not None and start.subscription is not None:
        flow = FlowRef(start.subscription, start.flow.key)
    account_flow = None
    if start.account_flow is not None:
        account_flow = AccountFlow(start.subscription, start.account_flow, is_asked=flow is None)
    return RunState(
        start.run,
        start.account,
        bytes(start.plan),
        input,
        event,
        kept_bytes=len(input) + len(event),
        flow=flow,
        held=flow is not None or account_flow is not None,
        account_flow=account_flow,
    )


# ── evolve ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def evolve(state: RunState, fact: RunFact) -> RunState:
    """The run after `fact`. Total: every fact that `decide` makes can be folded, in its order."""
    return _EVOLUTIONS[type(fact)](state, fact)


def _run_started(state: RunState, fact: RunStarted) -> RunState:
    return msgspec.structs.replace(state, held=False) if state.held else state


def _run_bundled(state: RunState, fact: RunBundled) -> RunState:
    input = bytes(fact.input)
    kept = state.kept_bytes - len(state.input) + len(input)
    return msgspec.structs.replace(state, input=input, kept_bytes=kept)


def _run_waiting(state: RunState, fact: RunWaiting) -> RunState:
    if fact.reason != "account" or state.account_flow is None:
        return state
    asked = msgspec.structs.replace(state.account_flow, is_asked=True)
    return msgspec.structs.replace(state, account_flow=asked)


def _step_started(state: RunState, fact: StepStarted) -> RunState:
    nodes = {**state.nodes, fact.node: Progress(RUNNING, fact.attempt, fact.behind or "")}
    return _with(state, nodes, state.outputs, state.kept_bytes)


def _step_completed(state: RunState, fact: StepCompleted) -> RunState:
    nodes = {**state.nodes, fact.node: Progress(DONE, fact.attempt, _behind(state, fact.node), fact.branch or "")}
    return _keeping(state, nodes, fact.node, bytes(fact.output))


def _step_failed(state: RunState, fact: StepFailed) -> RunState:
    status = FAILED if fact.retry_at is None else WAITING
    nodes = {**state.nodes, fact.node: Progress(status, fact.attempt, _behind(state, fact.node))}
    if status == WAITING:
        return _with(state, nodes, state.outputs, state.kept_bytes)
    return _keeping(state, nodes, fact.node, _output_of_failure(fact.error))


def _step_skipped(state: RunState, fact: StepSkipped) -> RunState:
    return _with(state, {**state.nodes, fact.node: Progress(SKIPPED, 0)}, state.outputs, state.kept_bytes)


def _run_ended(state: RunState, fact: RunEnded) -> RunState:
    return msgspec.structs.replace(state, ended=True)


def _behind(state: RunState, node: str) -> str:
    at = state.nodes.get(node)
    return "" if at is None else at.behind


def _keeping(state: RunState, nodes: dict[str, Progress], node: str, output: bytes) -> RunState:
    kept = state.kept_bytes + len(output)
    if kept > limits.STEP_CONTEXT_BYTES_MAX:
        return _with(state, nodes, state.outputs, kept)
    return _with(state, nodes, {**state.outputs, node: output}, kept)


def _with(state: RunState, nodes: dict[str, Progress], outputs: dict[str, bytes], kept: int) -> RunState:
    return RunState(
        state.run,
        state.account,
        state.plan,
        state.input,
        state.event,
        nodes,
        outputs,
        kept,
        state.ended,
        state.flow,
        state.held,
        state.account_flow,
    )


def _output_of_failure(error: ErrorInfo) -> bytes:
    """What later steps see of a step that failed and lets its run go on."""
    return b'{"error":{"code":%b,"message":%b}}' % (
        msgspec.json.encode(error.code),
        msgspec.json.encode(error.message),
    )


_EVOLUTIONS: Mapping[type[RunFact], Callable[[RunState, Any], RunState]] = {
    RunStarted: _run_started,
    RunBundled: _run_bundled,
    RunWaiting: _run_waiting,
    StepStarted: _step_started,
    StepCompleted: _step_completed,
    StepFailed: _step_failed,
    StepSkipped: _step_skipped,
    RunEnded: _run_ended,
}


# ── decide ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def decide(state: RunState | None, command: Command, now_ms: int) -> Decision:
    """What `command` makes true of its run. Never raises for what a command says: a plan that cannot be run ends its
    run as failed. A run id or an account that is none raises Reject."""
    if state is None:
        return _start(command, now_ms) if isinstance(command, StartRun) else Decision(None)
    if state.ended or isinstance(command, StartRun):
        return Decision(state)
    turn = _Turn(state, remembered_graph_of(state.account, state.plan), now_ms)
    _DECISIONS[type(command)](turn, command)
    return turn.decision


def _start(start: StartRun, now_ms: int) -> Decision:
    time_ms_of(start.run)
    state = opened(start)
    try:
        graph = remembered_graph_of(start.account, state.plan)
    except Reject as reason:
        error = ErrorInfo("invalid_plan", str(reason)[: limits.ERROR_MESSAGE_CHARS_MAX], retryable=False)
        ended = RunEnded(run=start.run, account=start.account, at=now_ms, outcome="failed", error=error)
        return Decision(evolve(state, ended), [ended])
    if state.held:
        return Decision(state, admissions=[_asking(start, state)])
    turn = _Turn(state, graph, now_ms)
    _begin(turn, start.subscription, None if start.event is None else start.event.id)
    return turn.decision


def _asking(start: StartRun, state: RunState) -> AskAdmission:
    """Its subscription's flow where it has one, else its account's."""
    if state.flow is None or start.flow is None:
        assert state.account_flow is not None, "that is why it is held"
        return _ask(state, state.account, state.account_flow.part)
    return _ask(state, state.flow.subscription, start.flow, start.input if start.flow.bundled else _NO_INPUT)


def _ask(state: RunState, of: str, part: FlowPart, input: Raw = _NO_INPUT) -> AskAdmission:
    return AskAdmission(
        run=state.run,
        account=state.account,
        subscription=of,
        key=part.key,
        priority=part.priority,
        partition=part.partition,
        offset=part.offset,
        at=part.at,
        bundled=part.bundled,
        input=input,
    )


def _begin(turn: "_Turn", subscription: str | None, event: str | None) -> None:
    state, plan = turn.state, turn.graph.plan
    turn.record(
        RunStarted(
            run=state.run,
            account=state.account,
            at=turn.now_ms,
            plan_id=plan.id,
            plan_kind=plan.kind,
            plan_version=plan.version,
            subscription=subscription,
            event=event,
            nodes=tuple(turn.graph.nodes),
        )
    )
    if plan.timeout_s is not None:
        turn.set_timer(TimerFired(run=state.run, account=state.account, purpose="timeout"), plan.timeout_s * 1000)
    turn.begin_all(turn.graph.entries)


def _admit(turn: "_Turn", command: AdmitRun) -> None:
    state, then = turn.state, turn.state.account_flow
    if not state.held or command.subscription not in (None, _asked_last(state)):
        return
    if command.bundled:
        turn.record(RunBundled(run=state.run, account=state.account, at=turn.now_ms, input=command.input))
    if then is not None and not then.is_asked:
        turn.ask_account(then.part)
        return
    by = None if then is None else then.subscription
    event = msgspec.json.decode(state.event, type=EventRef | None)
    _begin(turn, by if state.flow is None else state.flow.subscription, None if event is None else event.id)


def _asked_last(state: RunState) -> str | None:
    """Whose flow has yet to answer a run that is held: its account's, by its id, or its subscription's."""
    if state.account_flow is not None and state.account_flow.is_asked:
        return state.account
    return None if state.flow is None else state.flow.subscription


def _absorb(turn: "_Turn", command: AbsorbRun) -> None:
    if turn.state.held:
        turn.end("absorbed", None, into=command.into)


def _refuse(turn: "_Turn", command: RefuseRun) -> None:
    if turn.state.held:
        turn.end("failed", ErrorInfo("flow_full", command.reason, retryable=False))


def _cancel(turn: "_Turn", command: CancelRun) -> None:
    message = command.reason[: limits.ERROR_MESSAGE_CHARS_MAX]
    turn.end("cancelled", ErrorInfo("cancelled", message, retryable=False))


def _timer_fired(turn: "_Turn", timer: TimerFired) -> None:
    if timer.node is None:
        if timer.purpose == "timeout" and turn.graph.plan.timeout_s is not None:
            message = f"the run took longer than {turn.graph.plan.timeout_s:g} s"
            turn.end("timed_out", ErrorInfo("timed_out", message, retryable=False))
        return
    at = turn.state.nodes.get(timer.node)
    if at is None or at.attempt != timer.n:
        return
    if timer.purpose == "retry" and at.status == WAITING:
        turn.begin(timer.node, at.attempt + 1, at.behind or None)
    elif timer.purpose == "timeout" and at.status == RUNNING:
        turn.fail(timer.node, at.attempt, 0.0, ErrorInfo("timeout", "the step took too long"))
    turn.settle()


def _step_result(turn: "_Turn", result: StepResult) -> None:
    at = turn.state.nodes.get(result.node)
    if at is None or at.status != RUNNING or at.attempt != result.attempt:
        return
    error, output, branch = result.error, result.output, None
    if error is None and turn.graph.nodes[result.node].type == "condition":
        branch = _branch_of(output)
        if branch is None:
            error = ErrorInfo("no_branch", "the condition's output names no branch", retryable=False)
    if error is None and len(bytes(output)) > limits.STEP_OUTPUT_BYTES_MAX:
        message = f"the step's output has over {limits.STEP_OUTPUT_BYTES_MAX} bytes"
        error = ErrorInfo("output_too_large", message, retryable=False)
    if error is None:
        turn.complete(result.node, result, branch)
    else:
        turn.fail(result.node, at.attempt, result.duration_ms, error)
    turn.settle()


_DECISIONS: Mapping[type[Command], Callable[["_Turn", Any], None]] = {
    AdmitRun: _admit,
    AbsorbRun: _absorb,
    RefuseRun: _refuse,
    CancelRun: _cancel,
    TimerFired: _timer_fired,
    StepResult: _step_result,
}


class _Turn:
    """One decision in the making. Its state is folded fact by fact, so nothing can be decided that no fact tells."""

    __slots__ = ("decision", "graph", "now_ms", "settled", "state")

    def __init__(self, state: RunState, graph: Graph, now_ms: int) -> None:
        self.state = state
        self.graph = graph
        self.now_ms = now_ms
        self.settled: list[str] = []  # nodes that ended in this turn and whose followers have not been looked at
        self.decision = Decision(state, [], [], [], [], [])

    def record(self, fact: RunFact) -> None:
        self.state = self.decision.state = evolve(self.state, fact)
        self.decision.facts.append(fact)

    def begin_all(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            self.begin(node, 1)
        self.settle()

    def begin(self, node_id: str, attempt: int, behind: str | None = None) -> None:
        """Ask for an attempt, unless the run has ended in this turn. When what the attempt is given is too large, the
        step fails at once and for good."""
        state, node = self.state, self.graph.nodes[node_id]
        if state.ended:
            return
        run, account = state.run, state.account
        self.record(
            StepStarted(
                run=run,
                account=account,
                at=self.now_ms,
                node=node_id,
                type=node.type,
                attempt=attempt,
                behind=behind,
            )
        )
        context = _context(self.state, self.graph, node_id)
        if context is None:
            message = f"what the step is given has over {limits.STEP_CONTEXT_BYTES_MAX} bytes"
            self.fail(node_id, attempt, 0.0, ErrorInfo("context_too_large", message, retryable=False))
        else:
            self.decision.steps.append(_step(state, node, attempt, context))

    def complete(self, node: str, result: StepResult, branch: str | None) -> None:
        state = self.state
        self.record(
            StepCompleted(
                run=state.run,
                account=state.account,
                at=self.now_ms,
                node=node,
                attempt=result.attempt,
                duration_ms=result.duration_ms,
                branch=branch,
                output=result.output,
            )
        )
        self.settled.append(node)
        if self._is_complete():
            self.end("completed", None, _run_output(self.state, self.graph, {node: bytes(result.output)}))

    def fail(self, node_id: str, attempt: int, duration_ms: float, error: ErrorInfo) -> None:
        state, node = self.state, self.graph.nodes[node_id]
        code, message = error.code[: limits.ERROR_CODE_CHARS_MAX], error.message[: limits.ERROR_MESSAGE_CHARS_MAX]
        error = ErrorInfo(code, message, error.retryable)
        again = may_retry(node.retry, attempt=attempt, retryable=error.retryable)
        retry_at = self._retry(node, attempt) if again else None
        self.record(
            StepFailed(
                run=state.run,
                account=state.account,
                at=self.now_ms,
                node=node_id,
                attempt=attempt,
                duration_ms=duration_ms,
                error=error,
                retry_at=retry_at,
            )
        )
        if retry_at is not None:
            return
        self.settled.append(node_id)
        if node.on_error == "fail":
            self.end("failed", error)
        elif self._is_complete():
            self.end("completed", None, _run_output(self.state, self.graph, {node_id: _output_of_failure(error)}))

    def settle(self) -> None:
        """Begin or skip every node of which that is known by what ended in this turn. A loop: a begun node may end at
        once."""
        is_plain = self.graph.is_plain
        while self.settled:
            for follower in self.graph.successors[self.settled.pop(0)]:
                if follower in self.state.nodes:
                    continue
                if not is_plain:
                    self._reach(follower)
                elif self._is_ready(follower):
                    self.begin(follower, 1)

    def _reach(self, node: str) -> None:
        """Begin the node, skip it, or leave it until more has ended."""
        before = self.graph.predecessors[node]
        verdicts = [_is_taken(self.state, self.graph, id, node) for id in before]
        if self.graph.nodes[node].join == "any" and True in verdicts:
            self.begin(node, 1, before[verdicts.index(True)])
        elif None not in verdicts:
            if True in verdicts:
                self.begin(node, 1)
            else:
                self._skip(node)

    def _skip(self, node: str) -> None:
        state = self.state
        if state.ended:
            return
        type = self.graph.nodes[node].type
        self.record(StepSkipped(run=state.run, account=state.account, at=self.now_ms, node=node, type=type))
        self.settled.append(node)
        if self._is_complete():
            self.end("completed", None, _run_output(self.state, self.graph, {}))

    def end(
        self, outcome: RunOutcome, error: ErrorInfo | None, output: bytes = _NULL, *, into: str | None = None
    ) -> None:
        """The one terminal fact, and no timer left behind (but one that fired in this turn, which is gone anyway).
        Whoever admits the runs of a flow hears of it, unless it was told so from there."""
        state = self.state
        for id, at in state.nodes.items():
            if at.status == WAITING:
                self._cancel_timer(timer_id_of(state.run, f"retry:{id}", at.attempt))
        if self.graph.plan.timeout_s is not None and outcome != "timed_out" and not state.held:
            self._cancel_timer(timer_id_of(state.run, "timeout:", 0))
        self.record(
            RunEnded(
                run=state.run,
                account=state.account,
                at=self.now_ms,
                outcome=outcome,
                error=error,
                into=into,
                output=Raw(output),
            )
        )
        if outcome != "absorbed":
            self._release(state)
        if self.graph.plan.kind == "workflow" and outcome != "absorbed":
            self.decision.told.append(_last_words(state, self.graph, outcome, error, output, self.now_ms))

    def ask_account(self, part: FlowPart) -> None:
        """Its subscription's flow let it go: now the account's is asked."""
        run, account = self.state.run, self.state.account
        self.record(
            RunWaiting(run=run, account=account, at=self.now_ms, subscription=account, key=part.key, reason="account")
        )
        self.decision.admissions.append(_ask(self.state, account, part))

    def _release(self, state: RunState) -> None:
        asked = [] if state.flow is None else [(state.flow.subscription, state.flow.key)]
        if state.account_flow is not None and state.account_flow.is_asked:
            asked.append((state.account, state.account_flow.part.key))
        self.decision.admissions += [
            ReleaseAdmission(run=state.run, account=state.account, subscription=of, key=key) for of, key in asked
        ]

    def set_timer(self, fired: TimerFired, in_ms: float) -> int:
        due = self.now_ms + round(in_ms)
        run = self.state.run
        self.decision.timers.append(
            SetTimer(
                id=timer_id_of(run, f"{fired.purpose}:{fired.node or ''}", fired.n),
                owner=run,
                account=self.state.account,
                due=due,
                topic="run-commands-tx",
                key=run,
                record=Raw(encode(fired)),
            )
        )
        return due

    def _cancel_timer(self, id: str) -> None:
        self.decision.timers.append(CancelTimer(id=id, owner=self.state.run, account=self.state.account))

    def _retry(self, node: Node, attempt: int) -> int:
        state = self.state
        fired = TimerFired(run=state.run, account=state.account, purpose="retry", node=node.id, n=attempt)
        seed = f"{state.run}\x1f{node.id}\x1f{attempt}"
        return self.set_timer(fired, delay_ms(node.retry, attempt=attempt, seed=seed))

    def _is_ready(self, node: str) -> bool:
        """Every predecessor has ended. (One that failed for good without `continue` has ended the run as well.)"""
        nodes = self.state.nodes
        return all((at := nodes.get(id)) is not None and at.status >= DONE for id in self.graph.predecessors[node])

    def _is_complete(self) -> bool:
        nodes = self.state.nodes
        return len(nodes) == len(self.graph.nodes) and all(at.status >= DONE for at in nodes.values())


def attempt_key(run: str, node: str, attempt: int) -> str:
    """The idempotency key of one attempt: the same however often the attempt is made."""
    return derived_id("step", time_ms_of(run), "step", run, node, str(attempt))


def running(state: RunState) -> dict[str, int]:
    """The attempts that executors owe an answer to, by node."""
    return {} if state.ended else {node: at.attempt for node, at in state.nodes.items() if at.status == RUNNING}


def step_of(state: RunState, node: str, attempt: int) -> Step:
    """The request of an attempt that was decided before and is still running, exactly as it was decided."""
    graph = remembered_graph_of(state.account, state.plan)
    context = _context(state, graph, node)
    assert context is not None, "an attempt whose context is too large never runs"
    return _step(state, graph.nodes[node], attempt, context)


def _step(state: RunState, node: Node, attempt: int, context: bytes) -> Step:
    return Step(
        run=state.run,
        account=state.account,
        node=node.id,
        attempt=attempt,
        type=node.type,
        key=attempt_key(state.run, node.id, attempt),
        timeout_s=node.timeout_s,
        config=node.config,
        context=Raw(context),
    )


def _context(state: RunState, graph: Graph, node: str) -> bytes | None:
    """What a step is given, as JSON: the run's input and event, the outputs of every step before it, and the last
    one's. None when that is too large. Steps beside it are left out: they may or may not have ended."""
    outputs, ancestors, before = state.outputs, graph.ancestors[node], graph.predecessors[node]
    if not graph.is_plain:
        ancestors, before = _known_to(state, graph, node)
    if not all(id in outputs or state.nodes[id].status == SKIPPED for id in ancestors):
        return None
    previous = outputs.get(before[0], _NULL) if len(before) == 1 else _object(outputs, before) if before else _NULL
    steps = _object(outputs, ancestors)
    variables, plan = b"", graph.plan
    if plan.variables is not NO_VARIABLES:
        variables = b',"variables":%b' % bytes(plan.variables)
    context = b'{"input":%b,"event":%b,"steps":%b,"previous":%b%b}' % (
        state.input,
        state.event,
        steps,
        previous,
        variables,
    )
    return context if len(context) <= limits.STEP_CONTEXT_BYTES_MAX else None


def _known_to(state: RunState, graph: Graph, node: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What had ended for certain when the node began: all that lies before it, and the last of it. Behind an impatient
    join that is only the way by which it was reached, however much has ended since."""

    def before(id: str) -> tuple[str, ...]:
        at = state.nodes.get(id)
        return (at.behind,) if at is not None and at.behind else graph.predecessors[id]

    found: set[str] = set()
    open = list(before(node))
    while open:
        id = open.pop()
        if id not in found:
            found.add(id)
            open += before(id)
    return tuple(id for id in graph.ancestors[node] if id in found), before(node)


def _is_taken(state: RunState, graph: Graph, source: str, to: str) -> bool | None:
    """Whether the run goes along this edge; None = not known yet."""
    at = state.nodes.get(source)
    if at is None or at.status < DONE:
        return None
    if at.status == SKIPPED:
        return False
    when = graph.whens.get((source, to))
    if when is None:
        return True
    if when in (WHEN_SUCCEEDED, WHEN_FAILED):
        return (when == WHEN_FAILED) == (at.status == FAILED)
    if at.status == FAILED:
        return False
    return when == at.branch or (when == WHEN_ELSE and at.branch not in graph.branches[source])


class _Branch(msgspec.Struct, frozen=True):
    branch: str


def _branch_of(output: Raw) -> str | None:
    """The branch that a condition's output names."""
    try:
        branch = _branches.decode(bytes(output)).branch
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return branch if len(branch) <= limits.BRANCH_CHARS_MAX else None


def _last_words(
    state: RunState, graph: Graph, outcome: RunOutcome, error: ErrorInfo | None, output: bytes, now_ms: int
) -> Step:
    """The step that tells of a workflow's end: what it shall publish is what it is given as `previous`."""
    plan = graph.plan
    said: dict[str, Any] = {
        "workflow_id": plan.id,
        "workflow_name": plan.name,
        "version": plan.version or None,
        "test": plan.version == 0,
        "execution_id": state.run,
        "status": "completed" if outcome == "completed" else "failed",
        "completed_at": iso_of(now_ms),
        "error": None if error is None else {"code": error.code, "message": error.message},
        "output": Raw(output if len(output) <= limits.STEP_OUTPUT_BYTES_MAX else _NULL),
    }
    context = b'{"input":null,"event":%b,"steps":{},"previous":%b}' % (state.event, msgspec.json.encode(said))
    return Step(
        run=state.run,
        account=state.account,
        node="",
        attempt=1,
        type=LAST_WORDS,
        key=attempt_key(state.run, "", 1),
        timeout_s=limits.STEP_TIMEOUT_S_MAX,
        config=Raw(b"{}"),
        context=Raw(context),
    )


def _run_output(state: RunState, graph: Graph, newest: Mapping[str, bytes]) -> bytes:
    """The output of the plan's last step, or of all its last steps that were not skipped, by name. The newest may be
    too large to be kept."""
    outputs = {**state.outputs, **newest}
    leaves = graph.leaves
    return outputs.get(leaves[0], _NULL) if len(leaves) == 1 else _object(outputs, leaves)


def _object(outputs: Mapping[str, bytes], nodes: Iterable[str]) -> bytes:
    # Node ids need no escaping: plans allow letters, digits, '_' and '-' only.
    return b"{%b}" % b",".join([b'"%b":%b' % (id.encode(), outputs[id]) for id in nodes if id in outputs])


_branches: msgspec.json.Decoder[_Branch] = msgspec.json.Decoder(_Branch)
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[RunState] = msgspec.msgpack.Decoder(RunState)

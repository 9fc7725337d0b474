"""Every message on the log, by topic: field for field, in the order it is written.

These structs are the one description of what crosses the log. A `Raw` member comes last and keeps its bytes (`encode`
gives its start for header `p`). Unknown members are ignored, so that a newer writer does not stop an older reader;
missing or mistyped ones raise Reject in `decode`. Times are milliseconds since 1970.
"""

from typing import Any, Literal, TypeVar

import msgspec

from millrace_core.errors import Reject

Raw = msgspec.Raw


def null() -> Raw:
    """The payload `null`. A factory, so that a payload is always written (defaults are left out)."""
    return Raw(b"null")


def payload() -> Any:
    """A member that is written last and keeps its bytes."""
    return msgspec.field(default_factory=null)


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value on the log."""


# ── events ────────────────────────────────────────────────────────────────────────────────────────────────────────
class Event(Message, frozen=True, gc=False):
    """`events`: what a producer posted. `properties` are its bytes as received."""

    id: str
    account: str
    identifier: str
    received_at: int
    timestamp: str | None = None
    unique_key: str | None = None
    ordering_key: str | None = None
    replay: str | None = None  # the replay that wrote it again
    only: str | None = None  # of a replay: the one subscription that shall hear it
    hops: int = 0
    extensions: dict[str, str] | None = None  # CloudEvents context attributes that have no place of their own
    properties: Raw = payload()


# ── event-facts ───────────────────────────────────────────────────────────────────────────────────────────────────
class RunChild(Message, frozen=True, gc=False):
    id: str
    subscription: str


class DeliveryChild(Message, frozen=True, gc=False):
    id: str
    subscription: str
    endpoint: str


EventOutcome = Literal["matched", "unmatched", "duplicate", "refused", "dead_lettered", "stale"]


class EventFact(Message, frozen=True, tag_field="fact", tag="event.decided"):
    """`event-facts`: the one outcome of one record on `events`, naming its children."""

    event: str
    account: str
    outcome: EventOutcome
    at: int
    runs: tuple[RunChild, ...] = ()
    deliveries: tuple[DeliveryChild, ...] = ()
    duplicate_of: str | None = None
    reason: str | None = None


# ── run-commands, run-commands-tx ─────────────────────────────────────────────────────────────────────────────────
class EventRef(Message, frozen=True, gc=False):
    """The event a run or delivery came from, as steps and bodies see it."""

    id: str
    identifier: str
    received_at: int
    timestamp: str | None = None
    hops: int = 0  # of the event: what the run publishes has one more


class FlowPart(Message, frozen=True, gc=False):
    """Where a match stands in the flow of its subscription, or of its account: the key its event gave, how urgent it is
    (lower goes first), and which record of `events`, received when, it comes from. `bundled` = its input may become
    part of a list."""

    key: str
    priority: int
    partition: int
    offset: int
    at: int
    bundled: bool = False


class StartRun(Message, frozen=True, tag_field="command", tag="start"):
    """Begin a run of `plan` (pinned here: a run never looks its plan up again). `input` is its data."""

    run: str
    account: str
    plan: Raw
    subscription: str | None = None
    event: EventRef | None = None
    requested_by: str | None = None
    flow: FlowPart | None = None  # the subscription's flow says when it begins
    account_flow: FlowPart | None = None  # and, once that has let it go, the account's
    input: Raw = payload()


class CancelRun(Message, frozen=True, tag_field="command", tag="cancel"):
    run: str
    account: str
    reason: str = "cancelled"
    requested_by: str | None = None


class TimerFired(Message, frozen=True, tag_field="command", tag="timer"):
    """A timer of the run came due. `purpose` is `retry` or `timeout`; `n` is the attempt it belongs to."""

    run: str
    account: str
    purpose: Literal["retry", "timeout"]
    node: str | None = None
    n: int = 0


class AdmitRun(Message, frozen=True, tag_field="command", tag="admit"):
    """The flow of `subscription`, or of the account by its id, lets a run go; with this `input` in place of its own if
    it is `bundled`."""

    run: str
    account: str
    subscription: str | None = None  # None: written before there were flows of accounts
    bundled: bool = False
    input: Raw = payload()


class AbsorbRun(Message, frozen=True, tag_field="command", tag="absorb"):
    """A run that was held back never begins: its event is part of run `into`."""

    run: str
    account: str
    into: str


class RefuseRun(Message, frozen=True, tag_field="command", tag="refuse"):
    """A run can not be held back: its subscription's queue is full."""

    run: str
    account: str
    reason: str


class CancelMatches(Message, frozen=True, tag_field="command", tag="cancel_matches"):
    """An event that a subscription's flow cancels on: what came before it under this key is cancelled, waiting or
    running. `run` is an id of its own, derived like a run's, by which a repeat is told."""

    run: str
    account: str
    subscription: str
    event: str
    key: str
    partition: int
    offset: int
    at: int


RunCommand = StartRun | CancelRun | TimerFired | AdmitRun | AbsorbRun | RefuseRun | CancelMatches


# ── admissions ────────────────────────────────────────────────────────────────────────────────────────────────────
class AskAdmission(Message, frozen=True, tag_field="admission", tag="ask"):
    """A held run asks to begin: its FlowPart. `subscription` = whose flow is asked: the account's id for its own.
    `input` goes along only where it may become part of a list."""

    run: str
    account: str
    subscription: str
    key: str
    priority: int
    partition: int
    offset: int
    at: int
    bundled: bool = False
    input: Raw = payload()


class ReleaseAdmission(Message, frozen=True, tag_field="admission", tag="release"):
    """A run that asked has ended, whether it had begun or not."""

    run: str
    account: str
    subscription: str
    key: str


class CancelAdmissions(Message, frozen=True, tag_field="admission", tag="cancel"):
    """CancelMatches, as the flow's owner is told of it."""

    account: str
    subscription: str
    event: str
    key: str
    partition: int
    offset: int
    at: int


AdmissionCommand = AskAdmission | ReleaseAdmission | CancelAdmissions


# ── steps, step-results ───────────────────────────────────────────────────────────────────────────────────────────
class Step(Message, frozen=True):
    """`steps`: one attempt of one node, with everything its executor needs. `key` is the same on every repeat."""

    run: str
    account: str
    node: str
    attempt: int
    type: str
    key: str
    timeout_s: float
    config: Raw
    context: Raw = (
        payload()
    )  # {"input": …, "event": {…}, "steps": {node: output}, "previous": output[, "variables": {…}]}


class ErrorInfo(Message, frozen=True, gc=False):
    code: str
    message: str
    retryable: bool = True


class StepResult(Message, frozen=True):
    """`step-results`: what came of one attempt. Exactly one of `error` and `output` speaks."""

    run: str
    account: str
    node: str
    attempt: int
    started_at: int
    duration_ms: float
    error: ErrorInfo | None = None
    output: Raw = payload()


# ── run-facts ─────────────────────────────────────────────────────────────────────────────────────────────────────
class RunStarted(Message, frozen=True, tag_field="fact", tag="run.started"):
    run: str
    account: str
    at: int
    plan_id: str
    plan_kind: str
    plan_version: int
    subscription: str | None = None
    event: str | None = None
    nodes: tuple[str, ...] = ()


class StepStarted(Message, frozen=True, tag_field="fact", tag="step.started"):
    run: str
    account: str
    at: int
    node: str
    type: str
    attempt: int
    behind: str | None = None  # of a join that waits for no other: the node whose edge let it begin


class StepCompleted(Message, frozen=True, tag_field="fact", tag="step.completed"):
    """`branch` is what a condition came to."""

    run: str
    account: str
    at: int
    node: str
    attempt: int
    duration_ms: float
    branch: str | None = None
    output: Raw = payload()


class StepFailed(Message, frozen=True, tag_field="fact", tag="step.failed"):
    """One attempt failed. `retry_at` says when the next begins; None = the step is over."""

    run: str
    account: str
    at: int
    node: str
    attempt: int
    duration_ms: float
    error: ErrorInfo
    retry_at: int | None = None


class StepSkipped(Message, frozen=True, tag_field="fact", tag="step.skipped"):
    """No edge to this node was taken: it never begins."""

    run: str
    account: str
    at: int
    node: str
    type: str


RunOutcome = Literal["completed", "failed", "cancelled", "timed_out", "absorbed", "stale", "dead_lettered"]


class RunEnded(Message, frozen=True, tag_field="fact", tag="run.ended"):
    """The one terminal fact of a run. `output` is its last step's; `into` names the run that absorbed it."""

    run: str
    account: str
    at: int
    outcome: RunOutcome
    error: ErrorInfo | None = None
    into: str | None = None
    output: Raw = payload()


WaitReason = Literal[
    "debounce",
    "batch",
    "drain",
    "concurrency",
    "throttle",
    "account",
    "account_drain",
    "account_concurrency",
    "account_throttle",
]
"""`account` = its subscription's flow let it go, and the account's has yet to say what it waits for."""


class RunWaiting(Message, frozen=True, tag_field="fact", tag="run.waiting"):
    """What holds a run back under the flow of `subscription` (or of the account, by its id), and until when where that
    is known. Told again when it changes for the run whose turn is next, and once a day for every run that still
    waits."""

    run: str
    account: str
    at: int
    subscription: str
    key: str
    reason: WaitReason
    until: int | None = None


class RunBundled(Message, frozen=True, tag_field="fact", tag="run.bundled"):
    """The run's input has become a list: its own, and those of the runs that it absorbed."""

    run: str
    account: str
    at: int
    input: Raw = payload()


RunFact = RunStarted | StepStarted | StepCompleted | StepFailed | StepSkipped | RunEnded | RunWaiting | RunBundled


# ── deliveries, deliveries-tx, deliveries-overflow ────────────────────────────────────────────────────────────────
class Delivery(Message, frozen=True):
    """Ask for attempt `attempt` of one message for one endpoint. `body` is what is signed and sent, byte for byte."""

    id: str
    account: str
    endpoint: str
    event: str
    type: str
    attempt: int = 1
    created_at: int = 0
    subscription: str | None = None
    waits: int = 0  # how often it was put off before this attempt to keep to the endpoint's rate
    body: Raw = payload()


# ── delivery-facts ────────────────────────────────────────────────────────────────────────────────────────────────
class DeliveryAttempted(Message, frozen=True, tag_field="fact", tag="delivery.attempted"):
    """One attempt is over. `outcome` `retrying` has `retry_at`; the others are the delivery's terminal fact."""

    delivery: str
    account: str
    endpoint: str
    event: str
    attempt: int
    at: int
    outcome: Literal["succeeded", "retrying", "failed"]
    duration_ms: float
    url: str
    status: int | None = None
    error: ErrorInfo | None = None
    response: str | None = None  # its first 16 KB
    retry_at: int | None = None


class DeliveryEnded(Message, frozen=True, tag_field="fact", tag="delivery.ended"):
    """A terminal fact without an attempt. `stale` is the weakest: any other terminal fact stands over it."""

    delivery: str
    account: str
    endpoint: str
    event: str
    at: int
    outcome: Literal["stale", "cancelled", "dead_lettered"]
    reason: str


DeliveryFact = DeliveryAttempted | DeliveryEnded


# ── timers, timers-tx ─────────────────────────────────────────────────────────────────────────────────────────────
class SetTimer(Message, frozen=True, tag_field="timer", tag="set"):
    """When `due` comes the scheduler writes `record` to `topic` under `key` (and header `p` = `payload_at`, if any).

    Setting a timer that is already set changes nothing."""

    id: str
    owner: str
    account: str
    due: int
    topic: Literal["run-commands-tx", "deliveries-tx"]
    key: str
    payload_at: int | None = None
    record: Raw = payload()


class CancelTimer(Message, frozen=True, tag_field="timer", tag="cancel"):
    id: str
    owner: str
    account: str


class Tick(Message, frozen=True, tag_field="timer", tag="tick"):
    """Asks for nothing: written for the broker's time on it."""


TimerCommand = SetTimer | CancelTimer


# ── tallies ───────────────────────────────────────────────────────────────────────────────────────────────────────
class Tally(Message, frozen=True):
    """`tallies`: what one batch of the matcher held for one account: (identifier, events, runs, deliveries)."""

    account: str
    at: int
    counts: tuple[tuple[str, int, int, int], ...]


# ── meters ────────────────────────────────────────────────────────────────────────────────────────────────────────
class Meter(Message, frozen=True, gc=False):
    """`meters`: what one window held, as the meter saw it. Approximate: a crash may lose or repeat a batch's tally.
    A window that got more after it closed is written again, in full: of a window the latest record stands."""

    account: str
    identifier: str
    start: int
    end: int
    events: int
    runs: int
    deliveries: int


# ── receipt-roots, receipt-leaves ─────────────────────────────────────────────────────────────────────────────────
class ReceiptSeed(Message, frozen=True, tag_field="receipt", tag="seed"):
    """What every salt follows from. The first on the topic stands for ever."""

    seed: bytes


class DayDue(Message, frozen=True, tag_field="receipt", tag="due"):
    """Asks for nothing: written for the broker's time on it, before `day` is closed."""

    day: int


class ReceiptRoot(Message, frozen=True, tag_field="receipt", tag="root"):
    """The tree over an account's facts of one day, and its link in the account's chain. The first of a day stands."""

    account: str
    day: int
    leaves: int
    root: bytes
    previous: bytes
    chain: bytes


class DayClosed(Message, frozen=True, tag_field="receipt", tag="closed"):
    """All roots of the day are on the log. `ends`: (topic, partition, offset) at which the next day begins."""

    day: int
    accounts: int
    facts: int
    ends: tuple[tuple[str, int, int], ...]


AuditKind = Literal[
    "action.prompted", "action.requested", "action.asked", "action.confirmed", "action.refused", "action.executed"
]
ReceiptRecord = ReceiptSeed | DayDue | ReceiptRoot | DayClosed


class ReceiptLeaves(Message, frozen=True):
    """`receipt-leaves`: neighbouring leaves of a tree, 88 bytes each; `root` is theirs."""

    account: str
    day: int
    first: int
    root: bytes
    entries: bytes


# ── audit ─────────────────────────────────────────────────────────────────────────────────────────────────────────
class AuditEntry(Message, frozen=True):
    """`audit`: one thing that was asked, decided or done, written before its effect or with its result. `rendered` is
    the prompt as it was put to what resolved it, `response` what that said."""

    id: str
    account: str
    at: int
    kind: AuditKind
    actor: str
    role: str | None = None
    action: str | None = None
    version: int | None = None
    run: str | None = None
    confirmation: str | None = None
    prompt: str | None = None
    rendered: str | None = None
    response: str | None = None
    outcome: str | None = None
    error: ErrorInfo | None = None
    duration_ms: float | None = None
    params: Raw = payload()
    result: Raw = payload()


# ── control ───────────────────────────────────────────────────────────────────────────────────────────────────────
class AccountControl(Message, frozen=True):
    """kind `account`, id = the account's. Events of `unordered` identifiers are spread over all partitions; `flow` says
    when the runs of all its subscriptions may begin."""

    enabled: bool = True
    unordered: tuple[str, ...] = ()
    flow: "FlowControl | None" = None


class KeyControl(Message, frozen=True):
    """kind `key`, id = the key's id. `digest` is the keyed hash in hex; `expires_at` is checked by every reader."""

    account: str
    name: str
    digest: str
    scopes: tuple[str, ...]
    plan: str
    surface: str
    test: bool = False
    expires_at: int | None = None
    secret: str | None = None  # HMAC secret under the key ring, for the surfaces that sign
    old_digest: str | None = None  # of the text before a rotation, good until `old_until`
    old_secret: str | None = None
    old_until: int | None = None
    person: str | None = None  # whose key it is, and his role, which bounds the scopes
    role: str | None = None


class Concurrency(Message, frozen=True, gc=False):
    """Runs at a time: at most `ceiling` of one key and `total` of all; a key below its `floor` goes before others."""

    floor: int = 0
    ceiling: int | None = None
    total: int | None = None


class Throttle(Message, frozen=True, gc=False):
    """At most `limit` runs of one key begin within any `period_s`."""

    limit: int
    period_s: float


class Debounce(Message, frozen=True, gc=False):
    """Of a burst of one key one run begins: when nothing came for `quiet_s`, or `longest_s` after the first."""

    quiet_s: float
    longest_s: float
    mode: Literal["latest", "first", "all"] = "latest"


class Batch(Message, frozen=True, gc=False):
    """Up to `size` events of one key become one run, `wait_s` after the first at the latest."""

    size: int
    wait_s: float


class CancelOn(Message, frozen=True):
    """Events that cancel what came before them under their key: `key` is an expression, None = the flow's own."""

    pattern: str
    where: str | None = None
    key: str | None = None
    filter: Raw = payload()


class FlowControl(Message, frozen=True):
    """When the runs of a subscription, or of an account, may begin. `key` and `priority` are CEL expressions. Empty =
    at once."""

    key: str | None = None
    priority: str | None = None
    concurrency: Concurrency | None = None
    throttle: Throttle | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None
    drain: bool = False
    cancel_on: CancelOn | None = None


class SubscriptionControl(Message, frozen=True):
    """kind `subscription`. `filter` is the JSON pattern, `where` a CEL expression; both optional."""

    account: str
    pattern: str
    target_kind: Literal["plan", "endpoint"]
    target_id: str
    created_at: int
    priority: int = 100
    enabled: bool = True
    where: str | None = None
    flow: FlowControl | None = None  # of those that start plans: when their runs may begin
    filter: Raw = payload()


class PlanControl(Message, frozen=True):
    """kind `plan`: a job or chain, compiled. `plan` is the JSON that StartRun pins."""

    account: str
    plan: Raw


class EndpointControl(Message, frozen=True):
    """kind `endpoint`: a webhook endpoint. Secrets are under the key ring, newest first (rotation signs with all)."""

    account: str
    url: str
    secrets: tuple[str, ...]
    enabled: bool = True
    style: Literal["standard", "ops"] = "standard"
    retry_schedule_s: tuple[float, ...] | None = None
    timeout_s: float = 20.0
    concurrency: int = 32
    rate: float | None = None  # deliveries a second at most
    headers: dict[str, str] | None = None
    names: tuple[str, ...] = ()  # of its list of events, those that are documents' names (`event_names`)


class CredentialControl(Message, frozen=True):
    """kind `credential`: for calls of steps. `secret` is its value under the key ring; steps name it by id or name."""

    account: str
    name: str
    type: Literal["api_key", "bearer", "basic"]
    secret: str
    where: Literal["header", "query"]
    parameter: str
    prefix: str = ""
    hosts: tuple[str, ...] = ()


class ActionControl(Message, frozen=True):
    """kind `action`: a registered contract. `contract` is its RFC 8785 form, `seal` the HMAC over that form under the
    action's own secret, which is here under the key ring: whoever runs the action checks one with the other."""

    account: str
    name: str
    version: int
    secret: str
    seal: str
    contract: Raw = payload()


T = TypeVar("T")
_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def encode(message: Message) -> bytes:
    """The JSON bytes of a message, members in declared order."""
    return _encoder.encode(message)


def encode_with_payload(message: Message, last: Raw) -> tuple[bytes, bytes]:
    """The JSON bytes, and header `p` for the message's last member, which must be `last`."""
    value = _encoder.encode(message)
    return value, b"%d" % (len(value) - 1 - len(bytes(last)))


def decode(value: bytes | None, kind: type[T]) -> T:
    """Parse a value as `kind` (a struct or a union of tagged ones). Raises Reject with what was wrong and where."""
    if value is None:
        raise Reject("the record has no value")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(value)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Reject(f"not a valid {getattr(kind, '__name__', 'message')}: {error}") from None

"""The scheduler's handler: timers are set, cancelled, and become the record they carry when they are due.

Exactly once per transaction of its processor: a timer's record and its forgetting are one. What `timers-tx` says is
there once; what `timers` says may come again (the dispatcher writes at least once), so a timer from there is known by
its id for a day after it fired or was cancelled, and for as long as the outage lasts by the window over its sources.
That window's `stale` means nothing here: the dispatcher's deliveries end out of order. Not here: what time it is.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from millrace_core import limits
from millrace_core.errors import Reject
from millrace_core.handling import State
from millrace_core.id_memory import IdMemory
from millrace_core.messages import CancelTimer, SetTimer, Tick, decode
from millrace_core.record import (
    ACCOUNT,
    CONTROL,
    ID,
    PAYLOAD,
    SOURCE,
    TRACEPARENT,
    Output,
    Received,
    header,
    parse_source,
    topic_name,
)
from millrace_core.seen import SourceWindow
from millrace_core.timers import Timer, TimerQueue

PLAIN = "timers"
INPUTS = (PLAIN, "timers-tx")
READ_BACK = (PLAIN,)

_TIMER = b"timer/"
_GONE = b"gone/"


Fired = Callable[[int], None]
"""Told of each timer that fires, by how many ms late; again when its transaction was lost. Must not raise."""


class SchedulerHandler:
    """One partition's timers. A TransactionalHandler: made anew, and loaded, for each life of the partition's task."""

    def __init__(self, *, window: SourceWindow | None = None, fired: Fired = lambda late_ms: None) -> None:
        self._told = fired
        self._window = SourceWindow() if window is None else window
        self._queue = TimerQueue()
        self._gone = IdMemory(_GONE)

    def load(self, state: State, read_back: Iterable[Received]) -> None:
        self._gone.load(state)
        for key, value in state.scan(_TIMER):
            self._queue.add(key, _decoder.decode(value).due_ms)
        count = 0
        for record in read_back:
            count += 1
            source, id = parse_source(header(record, SOURCE)), header(record, ID)
            if source is not None and id is not None:
                self._window.add(source, id.decode("utf-8", "replace"), record.offset)
        if count >= limits.READ_BACK_RECORDS_MAX:
            self._window.cut()

    def handle(self, record: Received, state: State, now_ms: int) -> Sequence[Output]:
        command = decode(record.value, SetTimer | CancelTimer | Tick)  # type: ignore[arg-type]
        if isinstance(command, SetTimer):
            self._set(record, command, state, now_ms)
        elif isinstance(command, CancelTimer):
            self._cancel(command, state, now_ms)
        return ()

    def due(self, state: State, now_ms: int, limit: int) -> Sequence[Output]:
        outputs = [self._fired(key, state, now_ms) for key in self._queue.take_due(now_ms, limit)]
        self._gone.forget_due(state, now_ms, limit - len(outputs))
        return outputs

    @property
    def waiting(self) -> int:
        """How many timers wait."""
        return len(self._queue)

    def next_due_ms(self) -> int | None:
        return min((at for at in (self._queue.next_due_ms(), self._gone.next_due_ms()) if at is not None), default=None)

    def _set(self, record: Received, timer: SetTimer, state: State, now_ms: int) -> None:
        _check(record, timer, now_ms)
        key = timer_key(timer.account, timer.id)
        is_plain = topic_name(record.topic) == PLAIN
        source = parse_source(header(record, SOURCE)) if is_plain else None
        if state.get(key) is None and not (is_plain and self._is_gone(record, timer, state, now_ms)):
            state.put(key, _encoder.encode(_timer(record, timer, may_repeat=is_plain)))
            self._queue.add(key, timer.due)
        if source is not None:
            self._window.add(source, timer.id, record.offset)

    def _is_gone(self, record: Received, timer: SetTimer, state: State, now_ms: int) -> bool:
        if self._gone.knows(state, timer.account, timer.id, now_ms):
            return True
        source = parse_source(header(record, SOURCE))
        return source is not None and self._window.check(source, timer.id, record.offset) == "repeat"

    def _cancel(self, command: CancelTimer, state: State, now_ms: int) -> None:
        key = timer_key(command.account, command.id)
        value = state.get(key)
        if value is not None:
            self._forget(key, _decoder.decode(value), state, now_ms)
            self._queue.discard(key)

    def _fired(self, key: bytes, state: State, now_ms: int) -> Output:
        value = state.get(key)
        assert value is not None, "the queue holds what the state holds"
        timer = _decoder.decode(value)
        self._forget(key, timer, state, now_ms)
        self._told(now_ms - timer.due_ms)
        return Output(timer.topic, timer.key.encode(), timer.record, timer.headers)

    def _forget(self, key: bytes, timer: Timer, state: State, now_ms: int) -> None:
        state.delete(key)
        if timer.may_repeat:
            self._gone.remember(state, timer.account, timer.id, now_ms)


def timer_key(account: str, id: str) -> bytes:
    """Where a timer stands in the task's state."""
    return b"%b%b/%b" % (_TIMER, account.encode(), id.encode())


def _check(record: Received, timer: SetTimer, now_ms: int) -> None:
    if record.key != timer.owner.encode():
        raise Reject("the record's key is not the owner that its value names")
    if not 0 <= timer.due <= now_ms + limits.TIMER_AHEAD_MS_MAX:
        raise Reject(f"the timer is due at {timer.due}, further away than a timer can be set")
    if max(map(len, (timer.id, timer.owner, timer.account, timer.key))) > limits.ID_CHARS_MAX:
        raise Reject(f"id, owner, account and key have at most {limits.ID_CHARS_MAX} characters")
    if len(bytes(timer.record)) > limits.RECORD_VALUE_BYTES_MAX:
        raise Reject(f"the timer's record has over {limits.RECORD_VALUE_BYTES_MAX} bytes")
    if timer.payload_at is not None and not 0 < timer.payload_at < len(bytes(timer.record)):
        raise Reject(f"payload_at {timer.payload_at} lies outside the timer's record")


def _timer(record: Received, timer: SetTimer, *, may_repeat: bool) -> Timer:
    # No source: timers fire in another order than they were set, so a reader that keeps a window over their offsets
    # would take the retry of a day for stale. Nor is one needed: what fires is written once.
    headers = [(ACCOUNT, timer.account.encode()), (ID, timer.owner.encode())]
    headers += [
        (name, value)
        for name, value in record.headers
        if name in (CONTROL, TRACEPARENT) and len(value) <= limits.HEADER_BYTES_MAX
    ]
    if timer.payload_at is not None:
        headers.append((PAYLOAD, b"%d" % timer.payload_at))
    return Timer(
        id=timer.id,
        account=timer.account,
        due_ms=timer.due,
        topic=timer.topic,
        key=timer.key,
        headers=tuple(headers),
        record=bytes(timer.record),
        may_repeat=may_repeat,
    )


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Timer] = msgspec.msgpack.Decoder(Timer)

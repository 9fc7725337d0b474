"""What the dispatcher does with one record of `deliveries`, `deliveries-tx` or `deliveries-overflow`.

Claim the attempt → look the endpoint up → sign and post → decide → a fact, and a timer if it is tried again. Lanes
call `work` with many endpoints in flight and count the record as done when what it returned is acked: at least once,
always under the same delivery id. Nothing that a receiver does raises here: each of its ways to fail is an outcome.
Raises Reject for a record that is no delivery. Not here: concurrency and fairness (lanes), the rules (`outcome`).
"""

import re
from collections.abc import Sequence

from millrace_core import limits, record
from millrace_core.clock import Clock
from millrace_core.errors import Reject
from millrace_core.messages import Delivery, ErrorInfo, decode
from millrace_core.record import Output, Received
from millrace_dispatcher import outcome, outputs, sending
from millrace_dispatcher.claims import Claims
from millrace_dispatcher.endpoints import Endpoints, Prepared
from millrace_dispatcher.outcome import Decision
from millrace_dispatcher.pausing import Pausing
from millrace_dispatcher.ports import Meter, Sender
from millrace_dispatcher.rates import Key, Place, Rates
from millrace_dispatcher.shares import Shares
from millrace_kafka.lanes import Lane
from millrace_runtime.egress import OutgoingFailed

_DELIVERY_ID = re.compile(r"[a-z]{1,16}_[0-9a-f]{32}\Z")
_PLAIN = re.compile(r"[!-~]{1,200}\Z")
OVERFLOW_SUFFIX = f".{outputs.OVERFLOW}.v1"
RETRIES_SUFFIX = f".{outputs.RETRIES}.v1"


class Dispatcher:
    """Drives one delivery at a time, many at once. Not safe to share between threads."""

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        pausing: Pausing,
        claims: Claims,
        shares: Shares,
        rates: Rates,
        sender: Sender,
        clock: Clock,
        meter: Meter,
    ) -> None:
        self._endpoints = endpoints
        self._pausing = pausing
        self._claims = claims
        self._shares = shares
        self._rates = rates
        self._excess: set[Place] = set()
        # Those that leave to keep to a rate: that of which endpoint, and when they are to be back.
        self._away: dict[Place, tuple[Prepared, int]] = {}
        self._sender = sender
        self._clock = clock
        self._meter = meter

    # ── told by lanes, in the log's order ───────────────────────────────────────────────────────────────────────────
    def begin(self, topic: str, partition: int) -> None:
        """A partition is taken over."""
        self._claims.begin(topic, partition)
        self._shares.forget((topic, partition))
        self._rates.lost(topic, partition)

    def recall(self, read: Received) -> None:
        """A record from before the position."""
        self._claims.recall(read)

    def see(self, read: Received) -> None:
        """A record from the position on."""
        self._claims.see(read)

    def forget(self, topic: str, partition: int) -> None:
        """The partition went to another owner."""
        self._claims.forget(topic, partition)
        self._shares.forget((topic, partition))
        self._rates.lost(topic, partition)
        self._excess = {place for place in self._excess if place[:2] != (topic, partition)}
        self._away = {place: why for place, why in self._away.items() if place[:2] != (topic, partition)}

    def lane(self, asked_by: Received) -> Lane:
        """The endpoint's lane: unordered, as wide as the endpoint allows and stands just now. What is more than a slow
        account's share, or would wait long for its endpoint's rate, does not wait in it, but goes elsewhere at once."""
        key, part, now_s = _key_of(asked_by), (asked_by.topic, asked_by.partition), self._clock.monotonic()
        account, id = key
        is_moved = asked_by.topic.endswith(OVERFLOW_SUFFIX)
        if not is_moved and self._shares.is_excess(part, account, now_s):
            return self._excess_lane(asked_by, account)
        endpoint = self._endpoints.get(account, id)
        if endpoint is not None and self._leaves(asked_by, endpoint, now_s):
            return _moving(account)
        if not is_moved:
            self._shares.take(part, account, now_s)
        width = 1 if endpoint is None else self._pausing.allowed(key, endpoint.concurrency)
        return Lane(account=account, key=id, concurrency=width, ordered=False)

    def relane(self, waiting: Received) -> Lane | None:
        """Whether a delivery that waits, while no more can be read, is to be moved after all."""
        account, part, place = _account_of(waiting), (waiting.topic, waiting.partition), _place_of(waiting)
        if waiting.topic.endswith(OVERFLOW_SUFFIX) or place in self._excess or place in self._away:
            return None
        if not self._shares.is_excess(part, account, self._clock.monotonic()):
            return None
        self._shares.left(part, account)
        self._rates.over(_key_of(waiting), place)
        return self._excess_lane(waiting, account)

    def hold(self, waiting: Received, now_s: float) -> float:
        """Until when the lane of a delivery whose turn has come is held back, to keep to its endpoint's rate."""
        key, place = _key_of(waiting), _place_of(waiting)
        endpoint = self._endpoints.get(*key)
        if endpoint is None or endpoint.rate is None or place in self._excess or place in self._away:
            return now_s
        return self._rates.hold_s(key, place, endpoint.rate, now_s)

    def _excess_lane(self, asked_by: Received, account: str) -> Lane:
        self._excess.add(_place_of(asked_by))
        return _moving(account)

    def _leaves(self, asked_by: Received, endpoint: Prepared, now_s: float) -> bool:
        if endpoint.rate is None:
            return False
        place, is_back = _place_of(asked_by), asked_by.topic.endswith(RETRIES_SUFFIX)
        away_s = self._rates.leaves_for_s(_key_of(asked_by), place, endpoint.rate, now_s, is_back=is_back)
        if away_s is None:
            return False
        self._away[place] = endpoint, self._clock.now_ms() + int(away_s * 1000)
        return True

    # ── one record ──────────────────────────────────────────────────────────────────────────────────────────────────
    async def work(self, asked_by: Received) -> Sequence[Output]:
        """Make the attempt this record asks for, if it is its to make. Called by lanes; may be repeated; cancelling
        it leaves the attempt unmade or its outcome unknown, and the record not done."""
        verdict = self._claims.take(asked_by)
        if verdict == "repeat":
            self._over(asked_by)
            return ()
        place = _place_of(asked_by)
        if verdict == "new" and place in self._excess:
            self._over(asked_by)
            return outputs.moved(asked_by)
        if verdict == "new" and place in self._away:
            endpoint, due = self._away[place]
            self._over(asked_by)
            return self._postpone(asked_by, endpoint, due)
        try:
            return await self._deliver(asked_by, is_stale=verdict == "stale")
        finally:
            self._over(asked_by)

    def _over(self, asked_by: Received) -> None:
        """The record no longer waits here. (One of an attempt that failed unforeseen is counted out at once.)"""
        place = _place_of(asked_by)
        if place in self._excess:
            self._excess.discard(place)
        elif self._away.pop(place, None) is None:
            self._shares.done(place[:2], _account_of(asked_by))
            self._rates.over(_key_of(asked_by), place)

    def _postpone(self, asked_by: Received, endpoint: Prepared, due: int) -> Sequence[Output]:
        delivery = decode(asked_by.value, Delivery)
        _check(delivery)
        self._meter.postponed()
        if self._endpoints.get(delivery.account, delivery.endpoint) != endpoint:
            # It was changed since the record was read, perhaps by what the record was decided on: so ask again soon.
            due = self._clock.now_ms() + int(limits.RATE_WAIT_S * 1000)
        return outputs.postponed(asked_by, delivery, due)

    async def _deliver(self, asked_by: Received, *, is_stale: bool) -> Sequence[Output]:
        delivery = decode(asked_by.value, Delivery)
        _check(delivery)
        now_ms = self._clock.now_ms()
        if is_stale:
            return outputs.stale(asked_by, delivery, at=now_ms)
        endpoint = self._endpoints.get(delivery.account, delivery.endpoint)
        if endpoint is None or not endpoint.is_enabled:
            reason = "the endpoint was deleted" if endpoint is None else "the endpoint is disabled"
            return outputs.cancelled(asked_by, delivery, at=now_ms, reason=reason)
        if endpoint.problem is not None or endpoint.target is None:
            error = ErrorInfo(code="endpoint_unusable", message=endpoint.problem or "the endpoint has no URL")
            return self._unsent(asked_by, delivery, endpoint, error, now_ms)
        # The last attempt is always made: a delivery must not end without having been tried.
        is_last = delivery.attempt > len(endpoint.schedule_s)
        if not self._pausing.admits((delivery.account, endpoint.id), now_ms) and not is_last:
            return self._put_off(asked_by, delivery, endpoint, now_ms)
        return await self._attempt(asked_by, delivery, endpoint, now_ms)

    def parked(self, asked_by: Received, reason: str) -> Sequence[Output]:
        """What is written beside the dead letter of a record: its delivery's end."""
        return outputs.dead_lettered(asked_by, reason, at=self._clock.now_ms())

    async def _attempt(
        self, asked_by: Received, delivery: Delivery, endpoint: Prepared, now_ms: int
    ) -> Sequence[Output]:
        assert endpoint.target is not None
        body = bytes(delivery.body)
        began, status, response, failed = self._clock.monotonic(), None, b"", None
        try:
            answer = await self._sender.send(
                endpoint.target,
                account=delivery.account,
                head=sending.head(endpoint, delivery, body, now_ms=now_ms),
                body=body,
                timeout_s=endpoint.timeout_s,
            )
        except OutgoingFailed as error:
            failed = ErrorInfo(code=error.code, message=str(error)[: limits.ERROR_MESSAGE_CHARS_MAX])
            decision = self._decide_error(delivery, endpoint, failed)
        else:
            status, response = answer.status, answer.body
            decision = outcome.of_status(
                status,
                delivery=delivery.id,
                attempt=delivery.attempt,
                now_ms=self._clock.now_ms(),
                schedule_s=endpoint.schedule_s,
                retry_after=None if status < 300 else answer.header(b"retry-after"),
            )
        seconds = self._clock.monotonic() - began
        self._learn(delivery, endpoint, decision, status)
        self._meter.attempted(decision.outcome, seconds)
        return outputs.attempted(
            asked_by,
            delivery,
            decision,
            at=now_ms,
            duration_ms=seconds * 1000,
            url=endpoint.url,
            status=status,
            response=response,
        )

    def _learn(self, delivery: Delivery, endpoint: Prepared, decision: Decision, status: int | None) -> None:
        key = (delivery.account, endpoint.id)
        if decision.outcome == "succeeded":
            self._pausing.succeeded(key, endpoint.concurrency)
        elif status != outcome.GONE:
            self._pausing.failed(
                key, endpoint.concurrency, self._clock.now_ms(), is_overload=status in outcome.SLOW_DOWN
            )

    def _put_off(self, asked_by: Received, delivery: Delivery, endpoint: Prepared, now_ms: int) -> Sequence[Output]:
        until_ms = self._pausing.open_until_ms((delivery.account, endpoint.id))
        error = ErrorInfo(
            code="endpoint_paused",
            message="not sent: the last attempts to this endpoint failed, so it is given a rest; see their errors",
        )
        return self._unsent(asked_by, delivery, endpoint, error, now_ms, asked_s=max(0, until_ms - now_ms) / 1000)

    def _unsent(
        self,
        asked_by: Received,
        delivery: Delivery,
        endpoint: Prepared,
        error: ErrorInfo,
        now_ms: int,
        asked_s: float = 0.0,
    ) -> Sequence[Output]:
        decision = self._decide_error(delivery, endpoint, error, asked_s=asked_s)
        self._meter.attempted(error.code, 0.0)
        return outputs.attempted(asked_by, delivery, decision, at=now_ms, duration_ms=0.0, url=endpoint.url)

    def _decide_error(
        self, delivery: Delivery, endpoint: Prepared, error: ErrorInfo, *, asked_s: float = 0.0
    ) -> Decision:
        return outcome.of_error(
            error,
            delivery=delivery.id,
            attempt=delivery.attempt,
            now_ms=self._clock.now_ms(),
            schedule_s=endpoint.schedule_s,
            asked_s=asked_s,
        )


def _account_of(read: Received) -> str:
    return (record.header(read, record.ACCOUNT) or b"").decode("utf-8", "replace")


def _key_of(read: Received) -> Key:
    """The endpoint, as the record's headers and key name it."""
    return _account_of(read), (read.key or b"").decode("utf-8", "replace")


def _place_of(read: Received) -> Place:
    return read.topic, read.partition, read.offset


def _moving(account: str) -> Lane:
    """For what only goes elsewhere: it has its own turn, and waits for nothing."""
    return Lane(account=f"moving {account}")


def _check(delivery: Delivery) -> None:
    """Ids go into request headers and timers; what is no id goes nowhere."""
    if _DELIVERY_ID.match(delivery.id) is None or _PLAIN.match(delivery.event) is None:
        raise Reject("a delivery's id and event must be ids")
    if not 1 <= delivery.attempt <= limits.WEBHOOK_ATTEMPTS_MAX:
        raise Reject(f"attempt {delivery.attempt} is not between 1 and {limits.WEBHOOK_ATTEMPTS_MAX}")

"""The ingest routes and `/v1/events/fire`, as raw ASGI: one parse of an event, one record, an answer when
the broker acked it.

A 202, and each `eventId` in a batch's 200, means that the event is on the log. A 503 after a time-out may still have
become an event; its message says so. Everything that is not an ingest route goes to the FastAPI application behind.
The routes are described by hand in `millrace_web.ingest_openapi`.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from millrace_core import event, limits, request_signing
from millrace_core.clock import Clock
from millrace_core.errors import Reject, Retry
from millrace_core.event import Posted
from millrace_core.messages import Event
from millrace_core.record import Output
from millrace_gateway import batches, cloudevents, handlers
from millrace_gateway.bodies import Bodies, ClientGone
from millrace_gateway.door import Door, log_away, rate_limited
from millrace_gateway.ports import Acked, EventLog
from millrace_runtime.http_server import answer
from millrace_web import positions
from millrace_web.api_keys import ApiKey
from millrace_web.envelopes import INGEST, OPS, Envelope
from millrace_web.errors import ApiError, invalid, unavailable
from millrace_web.rate_limits import Verdict
from millrace_web.rate_plans import FIRE
from millrace_web.request_ids import choose_request_id
from millrace_web.signed_requests import SignedCall

PUBLISH = "/ingest/event/publish"
PUBLISH_BATCH = "/ingest/event/publish/batch"
CLIENT_GONE_STATUS = 499
SIGNED = request_signing.KEY.lower().encode()
# A batch is made into records piece by piece, so that single posts need not wait for the whole of it.
BATCH_PIECE = 100

_TRACEPARENT = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SURELY_UTF8 = frozenset({b"utf-8", b"utf8", b"us-ascii", b'"utf-8"'})
_JSON_TYPES = frozenset({b"", b"application/json", b"text/json", b"text/plain"})
_LINE_TYPES = frozenset(
    {b"application/x-ndjson", b"application/ndjson", b"application/jsonl", b"application/x-jsonlines"}
)
_STRUCTURED, _BATCH = cloudevents.STRUCTURED.encode(), cloudevents.BATCH.encode()

Header = tuple[bytes, bytes]
Answer = tuple[int, bytes, list[Header]]


class IngestObserver(Protocol):
    """Told what became of requests and events; must not block or raise."""

    def events(self, outcome: str, count: int) -> None: ...
    def rate_limited(self, account: str) -> None: ...
    def answered(self, route: str, method: str, status: int, seconds: float) -> None: ...
    def bug(self, route: str, request_id: str, error: Exception) -> None: ...


@dataclass(slots=True)
class Call:
    """One request on its way."""

    scope: Scope
    receive: Receive
    headers: Mapping[bytes, bytes]
    request_id: str
    answer_headers: list[Header] = field(default_factory=list)
    """Go out with whatever the answer will be."""
    signed: SignedCall | None = None
    """How the caller signed it, if he did: to be proven with the body."""

    @property
    def media_type(self) -> bytes:
        """Of the body, without parameters, lower case. Raises ApiError 415 for what cannot be UTF-8."""
        encoding = self.headers.get(b"content-encoding", b"identity")
        if encoding != b"identity":
            raise ApiError(415, f"Content-Encoding {_shown(encoding)} is not taken here: send the body uncompressed.")
        media_type, _, parameters = self.headers.get(b"content-type", b"").lower().partition(b";")
        if b"charset" in parameters and parameters.partition(b"charset=")[2].strip() not in _SURELY_UTF8:
            raise ApiError(415, "Send the body as UTF-8, and say charset=utf-8 or nothing.")
        return media_type.strip()

    @property
    def traceparent(self) -> str | None:
        given = self.headers.get(b"traceparent")
        return given.decode() if given is not None and _TRACEPARENT.fullmatch(given) else None

    @property
    def once(self) -> str | None:
        """What makes two requests of a key the same: its Idempotency-Key, else the nonce of one that is signed.

        The header is not signed, so who captured a request may send it with another: the door's memory of nonces
        refuses that, and what it does not know of (another gateway's) the nonce alone makes the same event."""
        given = self.headers.get(b"idempotency-key")
        if not given:
            return None if self.signed is None else f"nonce:{self.signed.nonce}"
        if len(given) > limits.UNIQUE_KEY_CHARS_MAX:
            raise invalid(f"Idempotency-Key has {len(given)} characters: use 1 to {limits.UNIQUE_KEY_CHARS_MAX}.")
        return given.decode("latin-1")


class Ingest:
    """The application that uvicorn serves: ingest routes here, all else by `behind`."""

    def __init__(
        self, *, door: Door, log: EventLog, bodies: Bodies, clock: Clock, observer: IngestObserver, behind: ASGIApp
    ) -> None:
        self._door = door
        self._log = log
        self._bodies = bodies
        self._clock = clock
        self._observer = observer
        self._behind = behind
        self._routes: dict[str, Callable[[Call], Awaitable[Answer]]] = {
            PUBLISH: self._publish,
            PUBLISH_BATCH: self._publish_batch,
            FIRE: self._fire,
        }
        self._iso: tuple[int, bytes] = (0, b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            await self._behind(scope, receive, send)
            return
        began = time.perf_counter()
        call = Call(scope, receive, dict(scope["headers"]), choose_request_id(scope["headers"]))
        try:
            status, body, headers = await self._answer(route, call)
        except ClientGone:
            self._observed(scope, CLIENT_GONE_STATUS, began)
            return
        if not call.answer_headers:
            headers += self._door.unknown().headers()
        headers += (
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", call.request_id.encode()),
        )
        await answer(send, status, headers, body)
        self._observed(scope, status, began)

    async def _answer(self, route: Callable[[Call], Awaitable[Answer]], call: Call) -> Answer:
        """The one place where what went wrong becomes a status."""
        try:
            if call.scope["method"] != "POST":
                raise ApiError(405, "Only POST is allowed here.", headers={"allow": "POST"})
            return await route(call)
        except ApiError as error:
            return _refusal(error, call)
        except Reject as error:
            self._observer.events("refused", 1)
            return _refusal(invalid(_sentence(error)), call)
        except Retry:
            self._observer.events("uncertain", 1)
            return _refusal(_uncertain(), call)
        except ClientGone:
            raise
        except Exception as error:
            self._observer.bug(call.scope["path"], call.request_id, error)
            message = f"Something failed on our side. Try again, and name request {call.request_id} if it stays."
            return _refusal(ApiError(500, message), call)

    def _observed(self, scope: Scope, status: int, began: float) -> None:
        self._observer.answered(scope["path"], scope["method"], status, time.perf_counter() - began)

    def _enter(self, call: Call, rate: "Rate") -> ApiKey:
        """Whose request it is. What is signed is proven and counted by `_prove`, before anything becomes of it."""
        if SIGNED in call.headers:
            call.signed = self._door.signed(call.scope)
        if call.signed is not None:
            return call.signed.key
        key = self._door.caller(call.scope["headers"])
        self._count(call, key, rate)
        return key

    def _prove(self, call: Call, body: bytes, rate: "Rate") -> None:
        if call.signed is not None:
            self._count(call, self._door.proven(call.signed, body, now_ms=self._clock.now_ms()), rate)

    def _count(self, call: Call, key: ApiKey, rate: "Rate") -> None:
        verdict = rate(key)
        call.answer_headers += verdict.headers()
        if verdict.retry_after_s is not None:
            self._observer.rate_limited(key.account)
            raise rate_limited(verdict)

    # ── one event ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _publish(self, call: Call) -> Answer:
        key = self._enter(call, self._door.rate)
        media_type = call.media_type
        if media_type == _BATCH:
            return await self._batch(call, key, _CLOUDEVENTS)
        made, now_ms = await self._one(call, key, self._door.rate, self._parser(call, media_type), surface="ingest")
        # Neither an id nor an identifier holds a character that JSON escapes.
        told = b'{"success":true,"eventId":"%b","identifier":"%b","receivedAt":"%b"}' % (
            made.id.encode(),
            made.identifier.encode(),
            self._received_at(now_ms),
        )
        return 202, told, call.answer_headers

    def _parser(self, call: Call, media_type: bytes) -> Callable[[bytes, int], Posted]:
        if media_type == _STRUCTURED:
            return lambda body, now_ms: cloudevents.from_structured(body, now_ms=now_ms)
        if b"ce-specversion" in call.headers:
            return lambda body, now_ms: cloudevents.from_binary(call.headers, body, now_ms=now_ms)
        if media_type in _JSON_TYPES or media_type.endswith(b"+json"):
            return _parse_own
        hint = (
            f"post batches to {PUBLISH_BATCH}" if media_type in _LINE_TYPES else "send Content-Type: application/json"
        )
        raise ApiError(415, f"Content-Type {_shown(media_type)} is not taken here: {hint}.")

    async def _one(
        self, call: Call, key: ApiKey, rate: "Rate", parse: Callable[[bytes, int], Posted], *, surface: str
    ) -> tuple[Event, int]:
        """One event onto the log, and when it was received. Its place there goes out with the answer."""
        self._door.let_in(1)
        body = b""
        try:
            body = await self._read(call, limits.BODY_BYTES_MAX)
            self._prove(call, body, rate)
            now_ms, once = self._clock.now_ms(), call.once
            made, output = handlers.accept(
                parse(body, now_ms),
                account=key.account,
                now_ms=now_ms,
                unique_key=handlers.stand_in_unique_key(once, key_id=key.id) if once else None,
                traceparent=call.traceparent,
                surface=surface,
            )
            acked = await self._submit(self._placed(key, made.identifier, made.id, output))
        finally:
            self._bodies.release(body)
            self._door.let_out(1)
        self._observer.events("accepted", 1)
        call.answer_headers.append(
            (positions.HEADER_BYTES, b"%b:%d:%d" % (acked.topic.encode(), acked.partition, acked.offset))
        )
        return made, now_ms

    async def _submit(self, output: Output) -> Acked:
        try:
            acked = self._log.submit(output)
        except Retry:
            raise log_away() from None
        return await acked

    async def _fire(self, call: Call) -> Answer:
        """`{event, payload}`."""
        key = self._enter(call, self._door.fire_rate)
        if call.media_type not in _JSON_TYPES and not call.media_type.endswith(b"+json"):
            raise ApiError(415, f"Content-Type {_shown(call.media_type)} is not taken here: send application/json.")
        made, now_ms = await self._one(call, key, self._door.fire_rate, _parse_fired, surface="ops")
        name = made.identifier.partition("/")[2].encode()
        told = b'{"id":"%b","event":"%b","received_at":"%b"}' % (made.id.encode(), name, self._received_at(now_ms))
        return 202, told, call.answer_headers

    # ── many events ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _publish_batch(self, call: Call) -> Answer:
        key = self._enter(call, self._door.rate)
        media_type = call.media_type
        if media_type == _BATCH:
            return await self._batch(call, key, _CLOUDEVENTS)
        if media_type in _LINE_TYPES:
            return await self._batch(call, key, _LINES)
        if media_type in _JSON_TYPES:
            return await self._batch(call, key, _ARRAY)
        if media_type == _STRUCTURED:
            hint = f"send {cloudevents.BATCH}, or post a single event to {PUBLISH}"
        else:
            hint = "send a JSON array as application/json, or lines as application/x-ndjson"
        raise ApiError(415, f"Content-Type {_shown(media_type)} is not taken here: {hint}.")

    async def _batch(self, call: Call, key: ApiKey, form: "Form") -> Answer:
        self._door.let_in(1)
        inside, body = 1, b""
        try:
            body = await self._read(call, limits.BATCH_BODY_BYTES_MAX)
            self._prove(call, body, self._door.rate)
            now_ms = self._clock.now_ms()
            try:
                items = form.items(body, now_ms=now_ms)
            except batches.TooMany as error:
                raise ApiError(413, _sentence(error)) from None
            self._door.let_in(len(items))
            inside += len(items)
            results, outputs = await self._decide(call, key, items, form.parse, now_ms)
            acked = await self._log.write(outputs) if outputs else ()
        finally:
            self._bodies.release(body)
            self._door.let_out(inside)
        refused = len(results) - len(outputs)
        self._observer.events("accepted", len(outputs))
        self._observer.events("refused", refused)
        if acked:
            furthest = {(one.topic, one.partition): one.offset for one in acked}  # in order within each partition
            value = positions.render(positions.Position(*place, offset) for place, offset in furthest.items())
            call.answer_headers.append((positions.HEADER_BYTES, value.encode()))
        told = {"success": True, "accepted": len(outputs), "refused": refused, "results": results}
        return 200, orjson.dumps(told), call.answer_headers

    async def _decide(
        self, call: Call, key: ApiKey, items: Sequence[bytes | Posted], parse: "Parse", now_ms: int
    ) -> tuple[list[dict[str, object]], list[Output]]:
        traceparent, once = call.traceparent, call.once
        results: list[dict[str, object]] = []
        outputs: list[Output] = []
        for index, item in enumerate(items):
            if index % BATCH_PIECE == BATCH_PIECE - 1:
                await asyncio.sleep(0)
            unique_key = handlers.stand_in_unique_key(once, key_id=key.id, index=index) if once else None
            try:
                made, output = handlers.accept(
                    item if isinstance(item, Posted) else _parsed(item, parse, now_ms),
                    account=key.account,
                    now_ms=now_ms,
                    unique_key=unique_key,
                    traceparent=traceparent,
                )
            except Reject as error:
                results.append({"index": index, "message": _sentence(error)})
                continue
            results.append({"index": index, "eventId": made.id})
            outputs.append(self._placed(key, made.identifier, made.id, output))
        return results, outputs

    # ── both ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _read(self, call: Call, bytes_max: int) -> bytes:
        return await self._bodies.read(call.receive, announced=call.headers.get(b"content-length"), bytes_max=bytes_max)

    def _placed(self, key: ApiKey, identifier: str, event_id: str, output: Output) -> Output:
        is_unordered = self._door.accounts.is_unordered(key.account, identifier)
        return handlers.spread(output, event_id) if is_unordered else output

    def _received_at(self, now_ms: int) -> bytes:
        if self._iso[0] != now_ms:
            self._iso = now_ms, event.iso_of(now_ms).encode()
        return self._iso[1]


_ENVELOPES: Mapping[str, Envelope] = {FIRE: OPS}


class Rate(Protocol):
    """Counts a request of this key."""

    def __call__(self, key: ApiKey, /) -> Verdict: ...


class Parse(Protocol):
    """From an item's bytes to what was posted; raises Reject."""

    def __call__(self, body: bytes, /, *, now_ms: int) -> Posted: ...


@dataclass(frozen=True, slots=True)
class Form:
    """How a batch is read: `split` into items that are parsed one by one, or `at_once` where it is short and every item
    right."""

    split: Callable[[bytes], list[bytes]]
    parse: Parse
    at_once: Callable[..., list[Posted] | None] = lambda body, *, now_ms: None

    def items(self, body: bytes, *, now_ms: int) -> Sequence[bytes | Posted]:
        """What stands in the batch: still to be parsed, or all of it parsed. Raises Reject, TooMany."""
        posts = self.at_once(body, now_ms=now_ms) if len(body) <= limits.BATCH_AT_ONCE_BYTES_MAX else None
        return posts if posts is not None and len(posts) <= limits.BATCH_ITEMS_MAX else self.split(body)


_ARRAY = Form(batches.split_array, event.parse_post, event.parse_posts)
_LINES = Form(batches.split_lines, event.parse_post)
_CLOUDEVENTS = Form(batches.split_array, cloudevents.from_structured)


def _parsed(item: bytes, parse: Parse, now_ms: int) -> Posted:
    if len(item) > limits.BODY_BYTES_MAX:
        raise Reject(f"the item is over {limits.BODY_BYTES_MAX} bytes: make it smaller")
    return parse(item, now_ms=now_ms)


def _parse_own(body: bytes, now_ms: int) -> Posted:
    return event.parse_post(body, now_ms=now_ms)


def _parse_fired(body: bytes, _now_ms: int) -> Posted:
    return event.parse_fired(body)


def _refusal(error: ApiError, call: Call) -> Answer:
    headers = [(name.encode(), value.encode()) for name, value in (error.headers or {}).items()]
    envelope = _ENVELOPES.get(call.scope["path"], INGEST)
    return error.status, orjson.dumps(envelope.error(error, call.request_id)), call.answer_headers + headers


def _uncertain() -> ApiError:
    return unavailable(
        "The event log did not confirm in time. What was sent may still become an event: send it again with the same "
        "uniqueKey (or Idempotency-Key), and it will count once.",
        retry_after_s=limits.GATEWAY_RETRY_AFTER_S,
        code="NOT_CONFIRMED",
    )


def _sentence(error: Reject) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


def _shown(value: bytes) -> str:
    return repr(value[:100].decode("latin-1"))

"""Drive an ASGI application without a server: one request in, one answer out, bodies in as many chunks as wanted."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

App = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class NoAnswer(AssertionError):
    """The application ended without answering."""


async def ask(
    app: App,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | Sequence[bytes] = b"",
    leaves: bool = False,
) -> Answer:
    """Send one request. `body` as a sequence arrives in chunks without a Content-Length (a stream); with `leaves` the
    client is gone after the last of them."""
    is_stream = not isinstance(body, bytes)
    chunks = [body] if isinstance(body, bytes) else list(body)
    lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    if not is_stream and not any(name == b"content-length" for name, _ in lines):
        lines.append((b"content-length", b"%d" % sum(map(len, chunks))))
    bare, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": bare,
        "raw_path": bare.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": lines,
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not chunks:
            return {"type": "http.disconnect"}
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks) or leaves}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        raise NoAnswer(f"no answer to {method} {path}")
    start = sent[0]
    return Answer(
        start["status"],
        {name.decode().lower(): value.decode("latin-1") for name, value in start.get("headers", [])},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )

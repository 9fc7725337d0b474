"""Where an HTTP/1.1 message ends: just enough of the protocol for a proxy that passes bytes through unchanged.

Bodies are told apart as RFC 9112 section 6 does; a message with both a length and chunks is refused. Not here: what a
message means.
"""

from dataclasses import dataclass

HEAD_BYTES_MAX = 65_536
CHUNK_LINE_BYTES_MAX = 4_096
END_OF_HEAD = b"\r\n\r\n"


class MalformedError(Exception):
    """The peer does not speak HTTP/1.1."""


class Body:
    """What follows a head. `take` is given the bytes as they come and says how many of them are still the body's."""

    done = False

    def take(self, data: bytes) -> int:
        """How many of the first bytes belong to this body. Sets `done` when it ends within them."""
        raise NotImplementedError


class Sized(Body):
    """As long as `content-length` says; 0 for a message without a body."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def take(self, data: bytes) -> int:
        taken = min(len(data), self._left)
        self._left -= taken
        self.done = self._left == 0
        return taken


class UntilClose(Body):
    """Ends with the connection."""

    def take(self, data: bytes) -> int:
        return len(data)


class Chunked(Body):
    """Chunks up to the empty one and its trailers."""

    def __init__(self) -> None:
        self._line = b""
        self._left = 0
        self._trailers = False

    def take(self, data: bytes) -> int:
        at = 0
        while at < len(data) and not self.done:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            end = data.find(b"\n", at)
            stop = len(data) if end < 0 else end + 1
            self._line += data[at:stop]
            at = stop
            if len(self._line) > CHUNK_LINE_BYTES_MAX:
                raise MalformedError("a chunk's first line is too long")
            if end >= 0:
                line, self._line = self._line.strip(), b""
                self._take_line(line)
        return at

    def _take_line(self, line: bytes) -> None:
        if self._trailers:
            self.done = not line
            return
        size = _hex(line.partition(b";")[0].strip())
        self._trailers = size == 0
        # The line end after a chunk's bytes is taken with them.
        self._left = size + 2 if size else 0


@dataclass(slots=True)
class Head:
    """A parsed head. `first` is the request or status line, split."""

    first: list[bytes]
    length: int | None = None
    chunked: bool = False
    close: bool = False
    upgrade: bool = False


def parse_head(head: bytes) -> Head:
    """The framing of a message whose head is `head` (without the empty line)."""
    lines = head.split(b"\r\n")
    parsed = Head(first=lines[0].split(b" ", 2))
    if len(parsed.first) < 2 or not (parsed.first[-1].startswith(b"HTTP/") or parsed.first[0].startswith(b"HTTP/")):
        raise MalformedError("no request or status line")
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon:
            raise MalformedError("a header without a colon")
        # Nearly every header is none of ours: told apart by its length before anything is copied.
        if len(name) not in (10, 14, 17):
            continue
        name = name.lower()
        if name == b"content-length":
            parsed.length = _decimal(value.strip())
        elif name == b"transfer-encoding":
            parsed.chunked = value.strip().lower().endswith(b"chunked")
        elif name == b"connection":
            options = value.lower()
            parsed.close = b"close" in options
            parsed.upgrade = b"upgrade" in options
    if parsed.chunked and parsed.length is not None:
        raise MalformedError("both a length and chunks")
    return parsed


def request_body(head: Head) -> Body:
    """The body that follows a request's head."""
    return Chunked() if head.chunked else Sized(head.length or 0)


def response_body(head: Head, *, method: bytes) -> Body:
    """The body that follows a final response's head."""
    status = head.first[1]
    if status == b"101":
        return UntilClose()
    if method == b"HEAD" or status in (b"204", b"304"):
        return Sized(0)
    if head.chunked:
        return Chunked()
    return UntilClose() if head.length is None else Sized(head.length)


def _hex(text: bytes) -> int:
    try:
        return int(text, 16)
    except ValueError:
        raise MalformedError("a chunk without a size") from None


def _decimal(text: bytes) -> int:
    if not text.isdigit():
        raise MalformedError("a length that is no number")
    return int(text)

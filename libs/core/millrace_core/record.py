"""What crosses the log: a record as read, and a record to be written. No Kafka client type reaches the rules.

Every record carries the headers `account`, `id`, `surface`, `source`, `control`, `traceparent` where they apply:
`source` is `topic:partition:offset` of the record that caused it, `control` the position of the control view it was
decided on. Header `p` is the byte at which the value's last member (an event's properties, a delivery's body, a run's
input) begins: it ends one byte before the value does, and its bytes are never written anew.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import msgspec

ACCOUNT = "account"
ID = "id"
SURFACE = "surface"
SOURCE = "source"
CONTROL = "control"
TRACEPARENT = "traceparent"
PAYLOAD = "p"
UNIQUE_KEY = "unique"
ORDERING_KEY = "ordering"

Headers = Sequence[tuple[str, bytes]]


class Received(Protocol):
    """A record as read from the log. aiokafka's own record has this shape, so none is copied."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970, set by the broker (LogAppendTime)."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class Written(msgspec.Struct, frozen=True, gc=False):
    """A Received made by hand: for tests, and for records that were read by other means."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Output(msgspec.Struct, frozen=True, gc=False):
    """A record to be written. `topic` is a catalogue name (`run-commands`); `route` is what its partition is
    computed from (the key itself when None); `partition` fixes it outright (changelogs only)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    route: bytes | None = None
    partition: int | None = None


@lru_cache(maxsize=256)
def topic_name(topic: str) -> str:
    """The catalogue name (`run-commands`) of a broker's topic name (`millrace.<namespace>.run-commands.v1`)."""
    return topic.removesuffix(".v1").rpartition(".")[2]


def header(record: Received, name: str) -> bytes | None:
    """The first header of that name, or None."""
    for key, value in record.headers:
        if key == name:
            return value
    return None


def source_of(record: Received) -> bytes:
    """What an output caused by this record carries in its `source` header."""
    return b"%b:%d:%d" % (record.topic.encode(), record.partition, record.offset)


class Source(msgspec.Struct, frozen=True, gc=False):
    """The parsed `source` header."""

    topic: str
    partition: int
    offset: int


def parse_source(value: bytes | None) -> Source | None:
    """The parsed `source` header; None when there is none or it is damaged (such a record has no source)."""
    if value is None:
        return None
    topic, _, rest = value.decode("utf-8", "replace").partition(":")
    partition, _, offset = rest.partition(":")
    if not (topic and partition.isdigit() and offset.isdigit()):
        return None
    return Source(topic, int(partition), int(offset))


def payload_bytes(record: Received) -> bytes | None:
    """The exact bytes of the value's last member, by header `p`; None when the header is absent or wrong."""
    start, value = header(record, PAYLOAD), record.value
    if start is None or value is None or not start.isdigit():
        return None
    at = int(start)
    return value[at:-1] if 0 < at < len(value) else None

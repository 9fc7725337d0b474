"""`X-Millrace-Position`: where on the log a write stands, so that a later read can wait for it.

Written `topic:partition:offset`, several with commas: the offset of the record written. Sent back on a GET it means:
answer when the read models have passed it. Opaque to clients; the topic is the catalogue's name.
"""

from collections.abc import Iterable

import msgspec

from millrace_web.errors import invalid

HEADER = "x-millrace-position"
HEADER_BYTES = HEADER.encode()
ENTRIES_MAX = 256


class Position(msgspec.Struct, frozen=True, gc=False):
    """One record on the log."""

    topic: str
    partition: int
    offset: int


def render(positions: Iterable[Position]) -> str:
    """The header's value: of each partition only the furthest."""
    furthest: dict[tuple[str, int], int] = {}
    for position in positions:
        at = position.topic, position.partition
        furthest[at] = max(position.offset, furthest.get(at, -1))
    return ",".join(f"{topic}:{partition}:{offset}" for (topic, partition), offset in sorted(furthest.items()))


def parse(value: str) -> tuple[Position, ...]:
    """The positions a client sends back. Raises ApiError 400 when it is not what we wrote."""
    entries = value.split(",", ENTRIES_MAX)
    if len(entries) > ENTRIES_MAX:
        raise invalid(f"{HEADER}: more than {ENTRIES_MAX} entries")
    return tuple(map(_parse_one, entries))


def _parse_one(entry: str) -> Position:
    topic, _, rest = entry.strip().partition(":")
    partition, _, offset = rest.partition(":")
    if not (topic and _is_number(partition) and _is_number(offset)):
        raise invalid(f"{HEADER}: send it back as an answer of ours gave it, topic:partition:offset")
    return Position(topic, int(partition), int(offset))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18

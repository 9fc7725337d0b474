"""The catalogue: every topic, who may write to it, how it is keyed and kept.

No topic has both plain and transactional writers; producers ask the catalogue and refuse the other kind.
Partition counts never change in place: growth is a new version of the topic. Not here: how topics are created
(`admin`).
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from millrace_core import limits
from millrace_core.event import event_route as event_route

DAY_MS = 86_400_000
UNLIMITED = -1


class Writer(Enum):
    """How a topic is written. A topic has one kind for ever."""

    PLAIN = "plain"
    TRANSACTIONAL = "transactional"


class Cleanup(Enum):
    DELETE = "delete"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Topic:
    """One entry. `partitions` None = the deployment's count, the same for all such topics (they are co-partitioned)."""

    name: str
    writer: Writer
    retention_ms: int
    cleanup: Cleanup = Cleanup.DELETE
    partitions: int | None = None
    record_bytes_max: int = limits.RECORD_BYTES_MAX
    config: tuple[tuple[str, str], ...] = ()


def _plain(name: str, days: int, **more: int | None) -> Topic:
    return Topic(name, Writer.PLAIN, days * DAY_MS, **more)  # type: ignore[arg-type]


def _tx(name: str, days: int, **more: int | None) -> Topic:
    return Topic(name, Writer.TRANSACTIONAL, days * DAY_MS, **more)  # type: ignore[arg-type]


def _changelog(service: str) -> Topic:
    return Topic(
        f"{service}-changelog",
        Writer.TRANSACTIONAL,
        UNLIMITED,
        Cleanup.COMPACT,
        config=(("delete.retention.ms", str(7 * DAY_MS)), ("segment.bytes", str(64 << 20))),
    )


CATALOGUE: Mapping[str, Topic] = MappingProxyType(
    {
        topic.name: topic
        for topic in (
            _plain("events", 30),
            _plain("event-facts", 30),
            _tx("run-facts", 30),
            _plain("delivery-facts", 30),
            _plain("run-commands", 14),
            _tx("run-commands-tx", 14),
            _tx("steps", 14),
            _plain("step-results", 14),
            _tx("admissions", 14),
            _plain("deliveries", 14),
            _tx("deliveries-tx", 14),
            _plain("deliveries-overflow", 14),
            _plain("timers", 14),
            _tx("timers-tx", 14),
            _plain("run-output", 1),
            Topic(
                "control",
                Writer.TRANSACTIONAL,
                UNLIMITED,
                Cleanup.COMPACT,
                partitions=1,
                config=(("segment.bytes", str(64 << 20)),),
            ),
            _plain("dead-letters", 30, record_bytes_max=limits.DEAD_LETTER_BYTES_MAX),
            _tx("dead-letters-tx", 30, record_bytes_max=limits.DEAD_LETTER_BYTES_MAX),
            _plain("tallies", 1),
            _plain("meters", 1),
            # Roots outlive the facts and the read models; the leaves below them are kept a year and a month.
            Topic("receipt-roots", Writer.PLAIN, UNLIMITED),
            _plain("receipt-leaves", 400),
            # What was asked and done outlives everything that it was about.
            Topic("audit", Writer.PLAIN, UNLIMITED),
            # The meter's windows live a minute; Faust restores its table from what it finds here.
            Topic("meter-changelog", Writer.PLAIN, 3_600_000, config=(("segment.ms", "600000"),)),
            # Dedupe entries are never written anew, so they are deleted by age: the 24 h window twice, and an hour.
            Topic("matcher-changelog", Writer.PLAIN, 49 * 3_600_000),
            _changelog("orchestrator"),
            _changelog("admissions"),
            _changelog("scheduler"),
        )
    }
)

PROJECTED = (
    "events",
    "event-facts",
    "run-commands",
    "run-commands-tx",
    "run-facts",
    "deliveries",
    "deliveries-tx",
    "deliveries-overflow",
    "delivery-facts",
    "dead-letters",
    "dead-letters-tx",
)
"""What the read models that go by the day are made of."""

PROJECTED_DAYS_MAX = min(CATALOGUE[name].retention_ms for name in PROJECTED) // DAY_MS
"""So long the log can make every row again: no read model may be kept for longer."""

PREFIX = "millrace."
SUFFIX = ".v1"


def full_name(name: str, namespace: str = "") -> str:
    """The broker's name for a catalogue name. Tests give a namespace so that several stacks share one broker."""
    return f"{PREFIX}{namespace + '.' if namespace else ''}{name}{SUFFIX}"


def short_name(full: str) -> str:
    """The catalogue name of a broker's topic name (namespace left out)."""
    return full.removesuffix(SUFFIX).rpartition(".")[2]


def partition_of(route: bytes, count: int) -> int:
    """The partition of a route, the same in every service and release: CRC-32 modulo the count."""
    return zlib.crc32(route) % count

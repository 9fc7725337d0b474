"""The read models anew from the log, beside those in use, which serve until the swap.

From each partition's start to its end, through the very handlers of the live projector, into a shadow schema. Rows
whose records the log no longer holds are copied from the old schema first (not with `--drop`: then the log alone
speaks), and days that were dropped stay so. When the shadow has passed the live positions the names are swapped in one
transaction; the live projector, which may run all the while, finds its positions moved and goes on in the new schema.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from millrace_core import limits
from millrace_core.clock import Clock, SystemClock
from millrace_core.dead_letters import OFFSET, PARTITION, TOPIC
from millrace_core.errors import MillraceError, Retry, Stale
from millrace_core.record import Output
from millrace_kafka.client import Cluster
from millrace_kafka.observer import Silent
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import Part, Reader
from millrace_kafka.topics import short_name
from millrace_projector.batches import Batches
from millrace_projector.handlers import TOPICS
from millrace_projector.ports import Letters, Untold
from millrace_projector.settings import ProjectorSettings
from millrace_runtime import settings as read_settings
from millrace_store import days, shadow
from millrace_store.pool import Connection, connect
from millrace_store.projection import Projection

SWAP_TRIES_MAX = 20
# Ids are made by clocks beside the broker's: rows that are a little younger than the log's start are copied too, which
# changes nothing where the log speaks of them itself.
KEPT_MARGIN = timedelta(hours=1)

# What the log says of each table comes from these topics; the row is older than the log when one of them has lost it.
ORIGINS: Mapping[str, tuple[str, ...]] = {
    "events": ("events",),
    "event_outcomes": ("event-facts",),
    "event_matches": ("event-facts",),
    "runs": ("run-commands", "run-commands-tx", "run-facts"),
    "steps": ("run-facts",),
    "step_attempts": ("run-facts",),
    "deliveries": ("deliveries", "deliveries-tx", "deliveries-overflow", "delivery-facts"),
    "delivery_attempts": ("delivery-facts",),
    "dead_letters": ("dead-letters", "dead-letters-tx"),
    "payloads": (
        "events",
        "run-commands",
        "run-commands-tx",
        "run-facts",
        "deliveries",
        "deliveries-tx",
        "deliveries-overflow",
    ),
    "receipt_roots": ("receipt-roots",),
    "receipt_leaves": ("receipt-leaves",),
    "receipt_days": ("receipt-roots",),
    "receipt_seeds": ("receipt-roots",),
    "entities": ("events",),
    "audit": ("audit",),
}


@dataclass
class Rebuilt:
    """What a rebuild did."""

    records: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    positions: dict[Part, int] = field(default_factory=dict)


class _Kept:
    """Dead letters of a rebuild. The live projector has written those behind its positions already."""

    def __init__(self) -> None:
        self.letters: list[Output] = []

    async def write(self, outputs: Sequence[Output]) -> None:
        self.letters += outputs

    def unwritten(self, live: Mapping[Part, int]) -> list[Output]:
        return [letter for letter in self.letters if self._offset(letter) >= live.get(self._part(letter), 0)]

    @staticmethod
    def _part(letter: Output) -> Part:
        headers = dict(letter.headers)
        return short_name(headers[TOPIC].decode()), int(headers[PARTITION])

    @staticmethod
    def _offset(letter: Output) -> int:
        return int(dict(letter.headers)[OFFSET])


async def rebuild(
    cluster: Cluster,
    dsn: str,
    *,
    letters: Letters,
    drop: bool = False,
    clock: Clock | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Rebuilt:
    """Rebuild and swap. Safe to repeat and to interrupt: before the swap nothing that is in use is touched. Raises
    Retry when Kafka or Postgres is away, Fatal when another rebuild runs."""
    connection = await connect(dsn, name="millrace rebuild", statement_s=0)
    kept = _Kept()
    projection = Projection(shadow.SHADOW)
    batches = Batches(projection, letters=kept, observer=Silent(), told=Untold(), clock=clock or SystemClock())
    try:
        await shadow.lock(connection)
        await shadow.create(connection)
        async with Reader(cluster) as reader:
            rebuilt = Rebuilt()
            starts = await reader.starts(await reader.partitions(TOPICS))
            if not drop and await shadow.exists(connection):
                await days.make(connection, (await days.look(connection)).attached, schema=shadow.SHADOW)
                rebuilt.kept = await shadow.keep_older(connection, await _older(reader, starts))
                say(f"kept {sum(rebuilt.kept.values())} rows from before the log's start")
            await projection.begin(connection, starts)
            await batches.reload(connection)
            reader.assign(batches.positions)
            live = await _pass_live(connection, reader, batches, rebuilt, say)
        rebuilt.positions = dict(batches.positions)
        if unwritten := kept.unwritten(live):
            await letters.write(unwritten)
        await shadow.drop(connection, shadow.OLD)
        return rebuilt
    finally:
        connection.terminate()


async def _pass_live(
    connection: Connection, reader: Reader, batches: Batches, rebuilt: Rebuilt, say: Callable[[str], None]
) -> dict[Part, int]:
    for _ in range(SWAP_TRIES_MAX):
        await _catch_up(connection, reader, batches, rebuilt)
        say(f"projected {rebuilt.records} records")
        await shadow.analyze(connection)
        await _catch_up(connection, reader, batches, rebuilt)
        try:
            return await shadow.swap(connection)
        except Stale as error:
            say(f"{error}: going on")
    raise Retry("the live projector was always ahead: try again at a quieter time")


async def _catch_up(connection: Connection, reader: Reader, batches: Batches, rebuilt: Rebuilt) -> None:
    """Project up to the ends of this moment."""
    ends = await reader.ends(batches.positions)
    still, before = 0.0, -1
    while any(batches.positions[part] < end for part, end in ends.items()):
        records = await reader.poll(max_records=limits.PROJECTOR_RECORDS_MAX)
        await batches.write(connection, records, {part: reader.position(part) for part in ends})
        rebuilt.records += len(records)
        still = 0.0 if sum(batches.positions.values()) != before else still + 0.25
        before = sum(batches.positions.values())
        if still > limits.PRODUCE_TIMEOUT_S:
            raise Retry("reading the log stands still")


async def _older(reader: Reader, starts: Mapping[Part, int]) -> dict[str, datetime]:
    """For each table whose topics have lost records: the moment before which rows may have lost theirs."""
    lost_until: dict[str, datetime] = {}
    for part, start in starts.items():
        if start == 0:
            continue
        first = await _first_time(reader, part, start)
        lost_until[part[0]] = max(first, lost_until.get(part[0], first))
    return {
        table: max(lost_until[topic] for topic in topics if topic in lost_until) + KEPT_MARGIN
        for table, topics in ORIGINS.items()
        if any(topic in lost_until for topic in topics)
    }


async def _first_time(reader: Reader, part: Part, start: int) -> datetime:
    """The time of the first record the partition still holds; far ahead when it holds none."""
    end = (await reader.ends([part]))[part]
    async for records in reader.read({part: start}, {part: end}, max_records=1):
        return datetime.fromtimestamp(records[0].timestamp / 1000, UTC)
    return datetime.max.replace(tzinfo=UTC) - timedelta(days=366)


def main(arguments: Sequence[str]) -> int:
    """The command `python -m millrace_projector rebuild [--drop]`; answers the exit code."""
    parser = argparse.ArgumentParser(prog="millrace rebuild", description="Make the read models anew from the log.")
    parser.add_argument("--drop", action="store_true", help="keep no row that the log does not hold any more")
    parsed = parser.parse_args(arguments)
    try:
        rebuilt = asyncio.run(_run(read_settings.read(ProjectorSettings), drop=parsed.drop))
    except MillraceError as error:
        sys.stderr.write(f"millrace rebuild: {error}\n")
        return 1
    sys.stdout.write(f"rebuilt from {rebuilt.records} records, {sum(rebuilt.kept.values())} older rows kept\n")
    return 0


async def _run(settings: ProjectorSettings, *, drop: bool) -> Rebuilt:
    cluster = Cluster(settings.kafka, settings.namespace, "millrace-rebuild", settings.security)
    producer = PlainProducer(cluster)
    await producer.start()
    try:
        return await rebuild(
            cluster,
            settings.postgres.get_secret_value(),
            letters=producer,
            drop=drop,
            say=lambda line: print(line, file=sys.stderr),  # noqa: T201 - a command speaks to its terminal
        )
    finally:
        await producer.stop()

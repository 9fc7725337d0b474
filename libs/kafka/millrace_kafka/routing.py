"""Where an output goes: its topic, its partition, and whether it may go there at all.

Nothing that the broker could refuse may enter a batch that it shares with others: one refused record poisons the
producer (aiokafka#1017). So size, kind of writer and the key of a compacted topic are checked here, before.
"""

from typing import Any

import msgspec

from millrace_core.errors import Reject, Retry
from millrace_core.record import Output
from millrace_kafka.client import Cluster
from millrace_kafka.topics import CATALOGUE, Cleanup, Writer, partition_of

# What framing and compression can add to a record that is alone in its batch: 61 bytes of batch header, a few varints,
# and three bytes for each 128 KB block that zstd cannot make smaller.
FRAMING_BYTES = 1_024
HEADER_FRAMING_BYTES = 8


class Place(msgspec.Struct, frozen=True, gc=False):
    """What is known of one topic that may be written to."""

    name: str
    topic: str
    partitions: int
    bytes_max: int
    is_compacted: bool


class Metadata(msgspec.Struct, frozen=True, gc=False):
    """Where an acked record stands. `topic` is the catalogue name, `timestamp` the broker's."""

    topic: str
    partition: int
    offset: int
    timestamp: int


def size_of(output: Output) -> int:
    """The bytes an output takes on the log, a little more than exactly."""
    size = FRAMING_BYTES + len(output.key or b"") + len(output.value or b"")
    for name, value in output.headers:
        # A dead letter keeps its headers, and one that a stranger wrote may have no value.
        size += len(name) + len(value or b"") + HEADER_FRAMING_BYTES
    return size


class Routing:
    """The places one kind of writer may write to, as the broker knows them."""

    def __init__(self, cluster: Cluster, writer: Writer) -> None:
        self._cluster = cluster
        self._writer = writer
        self._places: dict[str, Place] = {}

    def names(self) -> list[str]:
        """The broker's names of all topics this kind of writer may write to."""
        return [self._cluster.topic(topic.name) for topic in CATALOGUE.values() if topic.writer is self._writer]

    async def learn(self, client: Any) -> None:
        """Take the partition counts from the broker's metadata. One request; topics that do not exist are left out."""
        client.set_topics(self.names())
        await client.force_metadata_update()
        self._places = {}
        for topic in CATALOGUE.values():
            full = self._cluster.topic(topic.name)
            partitions = client.cluster.partitions_for_topic(full) if topic.writer is self._writer else None
            if partitions:
                self._places[topic.name] = Place(
                    name=topic.name,
                    topic=full,
                    partitions=len(partitions),
                    bytes_max=topic.record_bytes_max,
                    is_compacted=topic.cleanup is Cleanup.COMPACT,
                )

    def place(self, output: Output) -> tuple[Place, int]:
        """Where it goes. Raises Reject for what the broker or the catalogue would refuse, Retry for what is not there
        yet."""
        place = self._places.get(output.topic)
        if place is None:
            raise self._no_place(output.topic)
        size = size_of(output)
        if size > place.bytes_max:
            raise Reject(f"the record takes {size} bytes, {output.topic} holds records up to {place.bytes_max}")
        if output.partition is not None:
            if not 0 <= output.partition < place.partitions:
                raise Reject(f"{output.topic} has no partition {output.partition}")
            return place, output.partition
        route = output.route if output.route is not None else output.key
        if place.is_compacted and output.key is None:
            raise Reject(f"a record without a key cannot stand on {output.topic}, which is compacted")
        return place, partition_of(route, place.partitions) if route is not None else 0

    def _no_place(self, name: str) -> Exception:
        known = CATALOGUE.get(name)
        if known is None:
            return Reject(f"{name} is not in the catalogue")
        if known.writer is not self._writer:
            return Reject(f"{name} is written by {known.writer.value} producers only, this one is {self._writer.value}")
        return Retry(f"{self._cluster.topic(name)} does not exist: create the topics first (millrace topics)")

"""Topics, first positions, ends and lag: what is asked of the cluster rather than read from the log.

`create_topics` is what `millrace topics` runs and is safe to repeat: it creates what is missing, never changes a
partition count, and commits position 0 for every group that has none, since consumers here never reset an offset.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from millrace_core import limits
from millrace_core.errors import Fatal, Retry
from millrace_kafka import client as clients
from millrace_kafka.client import Cluster
from millrace_kafka.groups import GROUPS
from millrace_kafka.topic_ids import TopicsRequest
from millrace_kafka.topics import CATALOGUE, UNLIMITED, Cleanup, Topic

SETTLE_S = 0.05
READ_COMMITTED = "read_committed"


class Committed(msgspec.Struct, frozen=True, gc=False):
    """A group's position on one partition; offset -1 = none."""

    offset: int
    metadata: str = ""


class TopicInfo(msgspec.Struct, frozen=True, gc=False):
    """What the broker says of one topic."""

    name: str
    topic: str
    id: str
    partitions: int


class GroupLag(msgspec.Struct, frozen=True, gc=False):
    """How far a group is behind on one partition. `position` -1 = the group has no position there."""

    group: str
    topic: str
    partition: int
    position: int
    end: int

    @property
    def records(self) -> int:
        return max(0, self.end - max(0, self.position))


def topic_config(topic: Topic, *, replication: int) -> dict[str, str]:
    """The configuration a catalogue entry gets when there are that many replicas."""
    config = {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": topic.cleanup.value,
        "max.message.bytes": str(topic.record_bytes_max),
        "min.insync.replicas": "2" if replication >= 3 else "1",
        "unclean.leader.election.enable": "false",
        "compression.type": "producer",
    }
    if topic.cleanup is Cleanup.DELETE or topic.retention_ms != UNLIMITED:
        config["retention.ms"] = str(topic.retention_ms)
    config.update(dict(topic.config))
    return config


class Admin:
    """One connection for questions about the cluster. Use it as `async with Admin(cluster) as admin`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._admin: Any = None
        self._ends: dict[bool, AIOKafkaConsumer] = {}

    async def __aenter__(self) -> Self:
        self._admin = AIOKafkaAdminClient(
            bootstrap_servers=self._cluster.bootstrap,
            client_id=self._cluster.client_id,
            **self._cluster.security.options(),
            request_timeout_ms=int(limits.PRODUCE_TIMEOUT_S * 1000),
        )
        try:
            await clients.within(self._admin.start(), limits.PRODUCE_TIMEOUT_S, "the broker cannot be reached")
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections. Safe to repeat."""
        for reader in self._ends.values():
            await clients.close(reader)
        self._ends.clear()
        if self._admin is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(clients.CLOSE_S_MAX):
                    await self._admin.close()
            with contextlib.suppress(Exception):
                await self._admin._client.close()
            self._admin = None

    async def topics(self, names: Iterable[str] | None = None) -> dict[str, TopicInfo]:
        """The catalogue topics that exist, by catalogue name, with the ids the broker gave them."""
        wanted = {self._cluster.topic(name): name for name in (CATALOGUE if names is None else names)}
        request = TopicsRequest(list(wanted))
        response = await self._ask(self._admin._client.send(self._node(), request), "the topics could not be read")
        found = {}
        for error, topic, raw_id, _internal, partitions, *_ in response.topics:
            if error == 0 and topic in wanted:
                info = TopicInfo(wanted[topic], topic, uuid.UUID(bytes=raw_id).hex, len(partitions))
                found[info.name] = info
        return found

    def _node(self) -> Any:
        return self._admin._client.get_random_node()

    async def create(self, *, partitions: int, replication: int) -> list[str]:
        """Create the catalogue topics that are missing; the names created. Raises Fatal when one that exists has
        another partition count than its kind asks for."""
        existing = await self.topics()
        for name, info in existing.items():
            wanted = CATALOGUE[name].partitions or partitions
            if info.partitions != wanted:
                raise Fatal(
                    f"{info.topic} has {info.partitions} partitions, {wanted} were asked for: a count never changes "
                    "in place, growth is a new version of the topic"
                )
        missing = [topic for topic in CATALOGUE.values() if topic.name not in existing]
        if missing:
            await self._create(missing, partitions=partitions, replication=replication)
            await self._settled()
        return [topic.name for topic in missing]

    async def _create(self, topics: Sequence[Topic], *, partitions: int, replication: int) -> None:
        new = [
            NewTopic(
                name=self._cluster.topic(topic.name),
                num_partitions=topic.partitions or partitions,
                replication_factor=replication,
                topic_configs=topic_config(topic, replication=replication),
            )
            for topic in topics
        ]
        response = await self._ask(self._admin.create_topics(new), "the topics could not be created")
        for topic, code, *message in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise Fatal(f"{topic} could not be created: {error.__name__} {' '.join(str(m) for m in message)}")

    async def _settled(self) -> None:
        """Wait until every catalogue topic has leaders for all its partitions."""
        async with asyncio.timeout(limits.PRODUCE_TIMEOUT_S):
            while True:
                names = [self._cluster.topic(name) for name in CATALOGUE]
                described = await self._ask(self._admin.describe_topics(names), "the topics could not be read")
                has_leaders = all(
                    topic["error_code"] == 0 and all(part["leader"] >= 0 for part in topic["partitions"])
                    for topic in described
                )
                # A broker may know a topic's partitions a moment before it knows its id.
                if has_leaders and len(await self.topics()) == len(CATALOGUE):
                    return
                await asyncio.sleep(SETTLE_S)

    async def committed(self, group: str, topics: Iterable[str]) -> dict[tuple[str, int], Committed]:
        """The group's positions and their metadata on all partitions of these catalogue topics. `group` is a name
        of `groups.GROUPS`. Partitions without a position are there with offset -1."""
        names = list(topics)
        counts = await self.topics(names)
        if absent := set(names) - set(counts):
            raise Retry(f"no such topics yet: {', '.join(sorted(absent))}; run `millrace topics`")
        asked = [TopicPartition(info.topic, n) for info in counts.values() for n in range(info.partitions)]
        if not asked:
            return {}
        offsets = await self._offsets(group, asked)
        return {
            (self._cluster.short(tp.topic), tp.partition): Committed(at.offset, at.metadata or "")
            for tp, at in offsets.items()
        }

    async def committed_at(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Committed]:
        """The group's positions on these partitions (broker's names)."""
        offsets = await self._offsets(group, list(partitions))
        return {tp: Committed(at.offset, at.metadata or "") for tp, at in offsets.items()}

    async def _offsets(self, group: str, asked: list[TopicPartition]) -> Mapping[TopicPartition, Any]:
        if not asked:
            return {}
        full = self._cluster.group(group)
        found: Mapping[TopicPartition, Any] = await clients.within(
            self._settled_offsets(full, asked), limits.PRODUCE_TIMEOUT_S, f"the positions of {full} cannot be read"
        )
        return found

    async def _settled_offsets(self, full: str, asked: list[TopicPartition]) -> Any:
        while True:
            try:
                found = await self._admin.list_consumer_group_offsets(full, partitions=asked)
                # While the group's coordinator is being made, it answers without an error and without positions.
                if len(found) == len(asked):
                    return found
            except KafkaError as error:
                # A new broker, or one that just took the group over, first answers that it is not there yet.
                if not (error.retriable or isinstance(error, NoError)):
                    raise
            await asyncio.sleep(SETTLE_S)

    async def ends(
        self, partitions: Iterable[TopicPartition], *, read_committed: bool = False
    ) -> dict[TopicPartition, int]:
        """The end of each partition: the offset the next record will have (`read_committed`: that a reader of
        committed records can reach now)."""
        asked = list(partitions)
        if not asked:
            return {}
        reader = await self._reader(read_committed)
        ends: dict[TopicPartition, int] = await self._ask(reader.end_offsets(asked), "the ends cannot be read")
        return ends

    async def starts(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset that each partition still holds."""
        asked = list(partitions)
        if not asked:
            return {}
        reader = await self._reader(False)
        starts: dict[TopicPartition, int] = await self._ask(reader.beginning_offsets(asked), "starts cannot be read")
        return starts

    async def _reader(self, read_committed: bool) -> AIOKafkaConsumer:
        reader = self._ends.get(read_committed)
        if reader is None:
            reader = clients.consumer(self._cluster, read_committed=read_committed)
            await clients.start(reader)
            self._ends[read_committed] = reader
        return reader

    async def lag(self, group: str) -> list[GroupLag]:
        """How far a group of `groups.GROUPS` is behind on each of its partitions, in records."""
        positions = await self.committed(group, GROUPS[group])
        ends = await self.ends(TopicPartition(self._cluster.topic(topic), n) for topic, n in positions)
        return [
            GroupLag(group, topic, n, at.offset, ends[TopicPartition(self._cluster.topic(topic), n)])
            for (topic, n), at in sorted(positions.items())
        ]

    async def configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """The configuration of each catalogue topic as the broker holds it."""
        resources = [ConfigResource(ConfigResourceType.TOPIC, self._cluster.topic(name)) for name in names]
        answers = await self._ask(self._admin.describe_configs(resources), "the configuration cannot be read")
        found: dict[str, dict[str, str]] = {}
        for answer in answers:
            for _code, _message, _type, topic, entries in answer.resources:
                found[self._cluster.short(topic)] = {entry[0]: entry[1] for entry in entries}
        return found

    async def _ask(self, work: Any, what: str) -> Any:
        return await clients.within(work, limits.PRODUCE_TIMEOUT_S * 2, what)


async def create_topics(cluster: Cluster, *, partitions: int = 3, replication: int | None = None) -> list[str]:
    """Make the log ready for every service: create the missing topics, commit the first position of every group that
    has none. Safe to repeat, and safe beside running services. Returns the catalogue names created."""
    async with Admin(cluster) as admin:
        brokers = len(admin._admin._client.cluster.brokers())
        copies = replication if replication is not None else (3 if brokers >= 3 else 1)
        created = await admin.create(partitions=partitions, replication=copies)
        for group, topics in GROUPS.items():
            await _commit_first(cluster, admin, group, topics)
        return created


async def _commit_first(cluster: Cluster, admin: Admin, group: str, topics: Iterable[str]) -> None:
    """Commit position 0 where the group has none. A topic that lost its first records before a group ever read it
    keeps the group stopped: that is what was asked for."""
    positions = await admin.committed(group, topics)
    missing = {
        TopicPartition(cluster.topic(topic), n): (0, "") for (topic, n), at in positions.items() if at.offset < 0
    }
    if not missing:
        return
    committer = AIOKafkaConsumer(
        bootstrap_servers=cluster.bootstrap,
        client_id=cluster.client_id,
        **cluster.security.options(),
        group_id=cluster.group(group),
        enable_auto_commit=False,
        auto_offset_reset="none",
    )
    committer.assign(list(missing))
    try:
        await clients.start(committer)
        # Without a membership the broker takes a commit only while the group has no members: then no service runs
        # that could have moved a position.
        await clients.within(committer.commit(missing), limits.PRODUCE_TIMEOUT_S, f"{group} has members already")
    except (KafkaError, Retry) as error:
        raise Retry(f"the first positions of {group} could not be committed: {error}") from error
    finally:
        await clients.close(committer)

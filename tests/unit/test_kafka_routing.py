"""What may go where: the catalogue's rules, without a broker."""

from typing import Any

import pytest

from millrace_core import limits
from millrace_core.errors import Reject, Retry
from millrace_core.record import Output
from millrace_kafka.admin import topic_config
from millrace_kafka.client import Cluster
from millrace_kafka.groups import GROUPS
from millrace_kafka.routing import Routing, size_of
from millrace_kafka.topics import CATALOGUE, Cleanup, Writer, event_route, full_name, partition_of, short_name


class Metadata:
    """What aiokafka's client knows of the cluster: every topic has three partitions."""

    def __init__(self, missing: str = "") -> None:
        self.cluster = self
        self._missing = missing

    def set_topics(self, topics: Any) -> None: ...

    async def force_metadata_update(self) -> bool:
        return True

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return None if topic == self._missing else {0, 1, 2}


async def routing(writer: Writer, missing: str = "") -> Routing:
    made = Routing(Cluster("nowhere", "ns"), writer)
    await made.learn(Metadata(missing))
    return made


async def test_each_kind_of_writer_is_refused_the_others_topics() -> None:
    kinds = {writer: await routing(writer) for writer in Writer}
    for topic in CATALOGUE.values():
        output = Output(topic.name, b"key", b"value")
        for writer, places in kinds.items():
            if writer is topic.writer:
                assert places.place(output)[0].name == topic.name
            else:
                with pytest.raises(Reject, match="producers only"):
                    places.place(output)


async def test_every_topic_has_its_twin_of_the_other_kind_where_both_write() -> None:
    for name, topic in CATALOGUE.items():
        if name.endswith("-tx"):
            assert topic.writer is Writer.TRANSACTIONAL
            assert CATALOGUE[name.removesuffix("-tx")].writer is Writer.PLAIN


async def test_a_record_over_the_size_is_refused_by_name_and_size() -> None:
    places = await routing(Writer.PLAIN)
    output = Output("events", b"k", b"v" * limits.RECORD_BYTES_MAX)
    with pytest.raises(Reject, match=f"{size_of(output)} bytes"):
        places.place(output)
    places.place(Output("events", b"k", b"v" * limits.RECORD_VALUE_BYTES_MAX))
    # A dead letter holds the greatest record and the reason.
    places.place(Output("dead-letters", b"k", b"v" * limits.RECORD_BYTES_MAX))


def test_a_header_without_a_value_has_a_size() -> None:
    """A dead letter keeps the headers of a record that a stranger wrote."""
    stranger: Any = (("id", None),)
    size = size_of(Output("dead-letters", b"k", b"v", stranger))
    assert size < size_of(Output("dead-letters", b"k", b"v", (("id", b"1"),)))


async def test_a_compacted_topic_takes_no_record_without_a_key() -> None:
    with pytest.raises(Reject, match="compacted"):
        (await routing(Writer.TRANSACTIONAL)).place(Output("control", None, b"v"))


async def test_a_topic_that_is_not_there_yet_is_a_reason_to_wait() -> None:
    with pytest.raises(Retry, match="create the topics"):
        (await routing(Writer.PLAIN, missing=full_name("events", "ns"))).place(Output("events", b"k", b"v"))


async def test_the_route_decides_the_partition_else_the_key() -> None:
    places = await routing(Writer.PLAIN)
    route = event_route("acc", "e:a/b", None)
    assert places.place(Output("events", b"k", b"v", route=route))[1] == partition_of(route, 3)
    assert places.place(Output("timers", b"k", b"v"))[1] == partition_of(b"k", 3)
    assert places.place(Output("matcher-changelog", b"k", b"v", partition=2))[1] == 2
    with pytest.raises(Reject, match="no partition 3"):
        places.place(Output("matcher-changelog", b"k", b"v", partition=3))


def test_names_go_there_and_back() -> None:
    for name in CATALOGUE:
        for namespace in ("", "t1"):
            assert short_name(full_name(name, namespace)) == name


def test_groups_read_what_is_in_the_catalogue_with_one_partition_count() -> None:
    for topics in GROUPS.values():
        assert all(CATALOGUE[name].partitions is None for name in topics)


def test_the_time_on_the_log_is_the_brokers_and_nothing_is_elected_uncleanly() -> None:
    for topic in CATALOGUE.values():
        for replicas in (1, 3):
            config = topic_config(topic, replication=replicas)
            assert config["message.timestamp.type"] == "LogAppendTime"
            assert config["unclean.leader.election.enable"] == "false"
            assert config["min.insync.replicas"] == ("2" if replicas == 3 else "1")
            assert ("retention.ms" in config) or topic.cleanup is Cleanup.COMPACT

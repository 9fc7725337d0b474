"""Memberships on a real broker: who owns what, and who may commit."""

import asyncio
from typing import Any

import pytest
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from millrace_core.errors import Stale
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.feed import Part
from millrace_kafka.groups import GROUPS
from millrace_kafka.membership import Membership
from tests.support.processing import positions, running
from tests.support.waiting import eventually

GROUP = "orchestrator"


class Member:
    """A membership that notes what it is told."""

    def __init__(self, cluster: Cluster, *, instance: str | None = None, **more: Any) -> None:
        self.owned: frozenset[Part] = frozenset()
        self.told: list[str] = []
        self.at_revocation: dict[Part, tuple[int, str]] = {}
        self.membership = Membership(
            cluster,
            group=GROUP,
            topics=GROUPS[GROUP],
            instance=instance,
            on_assigned=self._assigned,
            on_revoked=self._revoked,
            **more,
        )

    def _assigned(self, owned: frozenset[Part]) -> None:
        self.told.append("assigned")
        self.owned = owned

    async def _revoked(self, _owned: frozenset[Part]) -> None:
        self.told.append("revoked")
        self.owned = frozenset()
        await self.membership.commit(self.at_revocation)

    async def run(self, stop: asyncio.Event) -> None:
        await self.membership.run(stop)


@pytest.fixture
async def topics(cluster: Cluster) -> Cluster:
    await create_topics(cluster, partitions=4)
    return cluster


def split(members: list[Member]) -> int:
    """How many partition numbers have their inputs with more than one member."""
    owners: dict[int, set[int]] = {}
    for n, member in enumerate(members):
        for _, number in member.owned:
            owners.setdefault(number, set()).add(n)
    return sum(len(found) > 1 for found in owners.values())


@pytest.mark.parametrize("assignors", [None, (RoundRobinPartitionAssignor,)], ids=["range", "planted: round robin"])
async def test_co_partitioned_inputs_stay_together(topics: Cluster, assignors: Any) -> None:
    more = {"assignors": assignors} if assignors else {}
    members = [Member(topics, **more) for _ in range(3)]
    async with running(members[0]), running(members[1]), running(members[2]):
        await eventually(
            lambda: all(m.owned for m in members) and sum(len(m.owned) for m in members) == 12, timeout_s=30
        )
        assert (split(members) == 0) == (assignors is None)


async def test_what_is_committed_while_partitions_are_revoked_counts(topics: Cluster) -> None:
    first, second = Member(topics), Member(topics)
    async with running(first):
        await eventually(lambda: len(first.owned) == 12)
        first.at_revocation = {("run-commands", n): (7 + n, "mark") for n in range(4)}
        async with running(second):
            await eventually(lambda: second.owned and first.owned, timeout_s=20)
            assert first.told[:3] == ["assigned", "revoked", "assigned"]
            assert await positions(topics, GROUP, "run-commands") == {n: 7 + n for n in range(4)}
            first.at_revocation = {}


async def test_a_quick_restart_of_a_static_member_moves_nothing(topics: Cluster) -> None:
    first, second = Member(topics, instance="one"), Member(topics, instance="two")
    async with running(second):
        async with running(first):
            await eventually(lambda: len(first.owned) == len(second.owned) == 6, timeout_s=20)
            before, told = first.owned, len(second.told)
        again = Member(topics, instance="one")
        async with running(again):
            await eventually(lambda: again.owned)
            assert again.owned == before
            assert second.told[told:] == []


async def test_a_member_whose_place_was_taken_cannot_commit(topics: Cluster) -> None:
    """As a process that froze longer than its session finds out when it wakes."""
    old, new = Member(topics, instance="one"), Member(topics, instance="one")
    async with running(old):
        await eventually(lambda: len(old.owned) == 12)
        frozen = old.membership
        async with running(new):
            await eventually(lambda: len(new.owned) == 12)
            await new.membership.commit({("run-commands", 0): (9, "")})
            with pytest.raises(Stale):
                await frozen.commit({("run-commands", 0): (3, "")})
            assert (await positions(topics, GROUP, "run-commands"))[0] == 9

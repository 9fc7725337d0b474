"""A meter that begins with windows to restore and tallies that wait: it takes every one, whatever the changelog holds.

Not one start proves it: with Faust's own order (the flow before the seek) four of ten skip some.
"""

import pytest

from millrace_core.record import Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from tests.integration.test_meter_process import meter
from tests.support.waiting import eventually

WAITING = 80


@pytest.mark.parametrize("start", range(4))
async def test_what_waits_is_taken_after_a_restore(cluster: Cluster, start: int) -> None:
    await create_topics(cluster, partitions=2, replication=1)
    producer = PlainProducer(cluster)
    await producer.start()
    try:
        await producer.write([Output("tallies", b"k%d" % n, b"no tally") for n in range(WAITING)])
        await producer.write([Output("meter-changelog", b"k%d" % n, b"no window") for n in range(20)])
    finally:
        await producer.stop()
    async with meter(cluster):

        async def all_taken() -> bool:
            return len({letter.key for letter in await read_all(cluster, ["dead-letters"])}) == WAITING

        await eventually(all_taken, timeout_s=20.0, every_s=0.2, what="every tally that waited is parked")

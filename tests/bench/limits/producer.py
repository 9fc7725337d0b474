"""Limit of batch ingest: one idempotent producer's `send` loop, futures awaited by the thousand. Prints messages/s.

It is given the record that ours writes, so that both put the same bytes on the log. Arguments: seconds; key, value and
headers as JSON.
"""

import asyncio
import json
import os
import sys
import time

import uvloop
from aiokafka import AIOKafkaProducer

PREFIX = os.environ["BENCH_TOPICS"]
PARTITIONS = int(os.environ.get("BENCH_PARTITIONS", "3"))


async def main(seconds: float, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["MILLRACE_KAFKA"], enable_idempotence=True, linger_ms=0, max_batch_size=262144
    )
    await producer.start()
    # A topic that is new has no leaders yet.
    for n in range(PARTITIONS):
        await producer.send_and_wait(PREFIX + "ev", value, key=key, partition=n, headers=headers)
    sent = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        futures = [
            await producer.send(PREFIX + "ev", value, key=key, partition=n % PARTITIONS, headers=headers)
            for n in range(1000)
        ]
        await asyncio.gather(*futures)
        sent += len(futures)
    print(sent / (time.perf_counter() - began), flush=True)
    await producer.stop()


key, value, headers = json.loads(sys.argv[2])
uvloop.run(main(float(sys.argv[1]), key.encode(), value.encode(), [(name, text.encode()) for name, text in headers]))

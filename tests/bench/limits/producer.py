"""Limit of batch ingest: one idempotent producer's `send` loop, futures awaited by the thousand. Prints messages/s."""

import asyncio
import os
import sys
import time

import uvloop
from aiokafka import AIOKafkaProducer

PREFIX = os.environ["BENCH_TOPICS"]
PARTITIONS = int(os.environ.get("BENCH_PARTITIONS", "3"))


async def main(seconds: float, size: int) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["MILLRACE_KAFKA"], enable_idempotence=True, linger_ms=0, max_batch_size=262144
    )
    await producer.start()
    value = b"x" * size
    sent = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        futures = [
            await producer.send(PREFIX + "ev", value, key=b"e:bench/order", partition=n % PARTITIONS)
            for n in range(1000)
        ]
        await asyncio.gather(*futures)
        sent += len(futures)
    print(sent / (time.perf_counter() - began), flush=True)
    await producer.stop()


uvloop.run(main(float(sys.argv[1]), int(sys.argv[2])))

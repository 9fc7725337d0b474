"""Limit of the dispatcher: sign and post with aiohttp, 128 in flight, one fact a delivery."""

import asyncio
import base64
import hashlib
import hmac
import os
import time
from typing import Any

import aiohttp
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

PREFIX = os.environ["BENCH_TOPICS"]
BROKER = os.environ["MILLRACE_KAFKA"]
SINK = os.environ["BENCH_SINK"]
SECRET = os.urandom(32)


async def main() -> None:
    producer = AIOKafkaProducer(bootstrap_servers=BROKER, enable_idempotence=True, linger_ms=5, max_batch_size=262144)
    await producer.start()
    consumer = AIOKafkaConsumer(
        PREFIX + "dl",
        bootstrap_servers=BROKER,
        group_id=PREFIX + "d",
        enable_auto_commit=True,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=128))
    room = asyncio.Semaphore(128)
    tasks: set[asyncio.Future[None]] = set()
    print("ready", flush=True)

    async def go(delivery: dict[str, Any]) -> None:
        try:
            body = delivery["body"].encode()
            stamp = str(int(time.time()))  # noqa: TID251 - the limit has no clock of its own
            mac = hmac.digest(SECRET, f"{delivery['id']}.{stamp}.".encode() + body, hashlib.sha256)
            began = time.perf_counter()
            headers = {
                "content-type": "application/json",
                "webhook-id": delivery["id"],
                "webhook-timestamp": stamp,
                "webhook-signature": "v1," + base64.b64encode(mac).decode(),
            }
            async with session.post(SINK, data=body, headers=headers) as response:
                await response.read()
                status = response.status
            fact = {"id": delivery["id"], "status": status, "ms": time.perf_counter() - began, "at": stamp}
            await producer.send(PREFIX + "df", orjson.dumps(fact), key=delivery["id"].encode())
        finally:
            room.release()

    while True:
        batches = await consumer.getmany(timeout_ms=1000, max_records=500)
        for records in batches.values():
            for record in records:
                await room.acquire()
                task = asyncio.ensure_future(go(orjson.loads(record.value)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)


uvloop.run(main())

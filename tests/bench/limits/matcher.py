"""Limit of the matcher: consume, emit one delivery and one fact an event, await both, commit every 100 ms.

`BENCH_PAD_DELIVERY` and `BENCH_PAD_FACT` pad the outputs to the size of ours.
"""

import asyncio
import os
import uuid

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

PREFIX = os.environ["BENCH_TOPICS"]
BROKER = os.environ["MILLRACE_KAFKA"]
PARTITIONS = int(os.environ.get("BENCH_PARTITIONS", "3"))
PAD_DELIVERY = "x" * int(os.environ.get("BENCH_PAD_DELIVERY", "0"))
PAD_FACT = "x" * int(os.environ.get("BENCH_PAD_FACT", "0"))
NAMESPACE = uuid.UUID(int=7)


async def main() -> None:
    producer = AIOKafkaProducer(bootstrap_servers=BROKER, enable_idempotence=True, linger_ms=0, max_batch_size=262144)
    await producer.start()
    consumer = AIOKafkaConsumer(
        PREFIX + "ev",
        bootstrap_servers=BROKER,
        group_id=PREFIX + "m",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    print("ready", flush=True)
    committed = 0.0
    loop = asyncio.get_running_loop()
    while True:
        batches = await consumer.getmany(timeout_ms=1000, max_records=1000)
        sent = []
        for records in batches.values():
            for record in records:
                event = orjson.loads(record.value)
                delivery = str(uuid.uuid5(NAMESPACE, event["id"]))
                value = {"id": delivery, "endpoint": "ep1", "body": record.value.decode()}
                fact = {"event": event["id"], "n": 1}
                if PAD_DELIVERY:
                    value["pad"] = PAD_DELIVERY
                if PAD_FACT:
                    fact["pad"] = PAD_FACT
                sent.append(
                    await producer.send(
                        PREFIX + "dl", orjson.dumps(value), key=b"ep1", partition=hash(delivery) % PARTITIONS
                    )
                )
                sent.append(await producer.send(PREFIX + "ef", orjson.dumps(fact), key=record.key))
        if sent:
            await asyncio.gather(*sent)
            if loop.time() - committed > 0.1:
                await consumer.commit()
                committed = loop.time()


uvloop.run(main())

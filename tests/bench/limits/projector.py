"""Limit of the projector in the pipeline: COPY events and facts with their positions, every 50 ms."""

import asyncio
import datetime
import os
import uuid

import asyncpg
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer

PREFIX = os.environ["BENCH_TOPICS"]
BROKER = os.environ["MILLRACE_KAFKA"]


async def main() -> None:
    consumer = AIOKafkaConsumer(
        PREFIX + "ev",
        PREFIX + "ef",
        PREFIX + "df",
        bootstrap_servers=BROKER,
        group_id=PREFIX + "p",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    db = await asyncpg.connect(os.environ["MILLRACE_POSTGRES"])
    await db.execute(
        f"create table if not exists ev{PREFIX}(id uuid primary key,type text,at timestamptz,body text);"
        f"create table if not exists ef{PREFIX}(event text,n int);"
        f"create table if not exists df{PREFIX}(id text primary key,status int,ms float8);"
        f"create table if not exists pos{PREFIX}(topic text,part int,off bigint,primary key(topic,part))"
    )
    print("ready", flush=True)
    while True:
        batches = await consumer.getmany(timeout_ms=1000, max_records=5000)
        if not batches:
            continue
        events, facts, deliveries = [], [], []
        for tp, records in batches.items():
            for record in records:
                x = orjson.loads(record.value)
                if tp.topic == PREFIX + "ev":
                    at = datetime.datetime.fromtimestamp(x["at"], datetime.UTC)
                    events.append((uuid.UUID(x["id"]), x["type"], at, record.value.decode()))
                elif tp.topic == PREFIX + "ef":
                    facts.append((x["event"], x["n"]))
                else:
                    deliveries.append((x["id"], x["status"], x["ms"]))
        async with db.transaction():
            if events:
                await db.copy_records_to_table(f"ev{PREFIX}", records=events)
            if facts:
                await db.copy_records_to_table(f"ef{PREFIX}", records=facts)
            if deliveries:
                await db.copy_records_to_table(f"df{PREFIX}", records=deliveries)
            await db.executemany(
                f"insert into pos{PREFIX} values($1,$2,$3) on conflict(topic,part) do update set off=excluded.off",
                [(tp.topic, tp.partition, records[-1].offset + 1) for tp, records in batches.items()],
            )
        await asyncio.sleep(0.05)


uvloop.run(main())

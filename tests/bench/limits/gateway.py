"""Limit of ingest: a raw ASGI route with one awaited send (uvicorn serves `app`)."""

import os
import time
import uuid
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

PREFIX = os.environ["BENCH_TOPICS"]
PARTITIONS = int(os.environ.get("BENCH_PARTITIONS", "3"))
producer: Any = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    global producer
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                producer = AIOKafkaProducer(
                    bootstrap_servers=os.environ["MILLRACE_KAFKA"],
                    enable_idempotence=True,
                    linger_ms=0,
                    max_batch_size=262144,
                )
                await producer.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await producer.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    event = orjson.loads(body)
    kind = event["eventType"]
    key = ("e:{}/{}".format(kind["provider"], kind["name"])).encode()
    event_id = str(uuid.uuid4())  # noqa: TID251 - the limit has no ids of its own
    value = orjson.dumps(
        {
            "id": event_id,
            "account": "a",
            "type": key.decode(),
            "at": time.time(),  # noqa: TID251 - the limit has no clock of its own
            "properties": event.get("properties"),
        }
    )
    await (await producer.send(PREFIX + "ev", value, key=key, partition=hash(event_id) % PARTITIONS))
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'{"success":true,"eventId":"%s"}' % event_id.encode()})

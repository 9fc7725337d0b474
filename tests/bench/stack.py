"""One bench run's servers and processes: a broker and a database as shipped (fsync on), ours and the limits'."""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from millrace_devstack.kafka import Kafka
from millrace_devstack.ports import free_port
from millrace_devstack.postgres import Postgres
from tests.bench import cpu
from tests.support.platform import Platform

PARTITIONS = 3
LIMITS = Path(__file__).parent / "limits"
SINK = Path(__file__).parent / "sink.py"


@dataclass
class Sink:
    """The webhook receiver's process."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def ask(self, what: str) -> bytes:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/{what}") as answer:
            return await answer.read()

    async def count(self) -> int:
        return int(await self.ask("count"))


@dataclass
class Stack:
    """What all measurements of a run share."""

    kafka: Kafka
    postgres: Postgres
    folder: Path
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def platform(self) -> Platform:
        """Fresh topics and tables for ours; nothing is started yet."""
        namespace = f"b{uuid.uuid1().hex[:10]}"
        dsn = await self.postgres.ensure_database(namespace)
        platform = Platform(self.kafka.bootstrap, dsn, namespace, self.folder / namespace)
        await asyncio.to_thread(platform.prepare, partitions=PARTITIONS)
        return platform

    async def limit_topics(self) -> str:
        """Fresh topics for a limit; their common prefix."""
        prefix = f"l{uuid.uuid1().hex[:10]}"
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await admin.start()
        try:
            await admin.create_topics(
                [
                    NewTopic(prefix + name, PARTITIONS, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})
                    for name in ("ev", "dl", "ef", "df")
                ]
            )
        finally:
            await admin.close()
        return prefix

    def limit(
        self, name: str, prefix: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a limit's process."""
        return self._spawn([sys.executable, str(LIMITS / f"{name}.py"), *arguments], prefix, env)

    async def limit_gateway(self, prefix: str) -> tuple[subprocess.Popen[bytes], int]:
        """The bare ASGI route under uvicorn, listening."""
        port = free_port()
        process = self._spawn(
            [
                *(sys.executable, "-m", "uvicorn", "tests.bench.limits.gateway:app", "--host", "127.0.0.1"),
                *("--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"),
                *("--log-level", "warning"),
            ],
            prefix,
            None,
        )
        await _listening(port)
        return process, port

    async def sink(self) -> Sink:
        """A receiver, listening."""
        port = free_port()
        process = self._spawn([sys.executable, str(SINK), str(port)], "", None)
        await _listening(port)
        return Sink(process, port)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End one child and forget it."""
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.children.remove(process)

    def _spawn(self, command: Sequence[str], prefix: str, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        log = (self.folder / "limits.log").open("ab")
        process = subprocess.Popen(
            command,
            env={
                **os.environ,
                "MILLRACE_KAFKA": self.kafka.bootstrap,
                "MILLRACE_POSTGRES": self.postgres.dsn(),
                "BENCH_TOPICS": prefix,
                "BENCH_PARTITIONS": str(PARTITIONS),
                **(env or {}),
            },
            stdout=subprocess.PIPE,
            stderr=log,
        )
        log.close()
        self.children.append(process)
        return process

    def server_cpu(self) -> dict[str, float]:
        """CPU seconds so far of the two servers."""
        assert self.kafka.pid is not None
        assert self.postgres.pid is not None
        return {
            "kafka": cpu.family_cpu_seconds(self.kafka.pid),
            "postgres": cpu.family_cpu_seconds(self.postgres.pid),
        }


async def says_ready(process: subprocess.Popen[bytes]) -> None:
    """Wait for a limit's line `ready`."""
    assert process.stdout is not None
    line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 30)
    if b"ready" not in line:
        raise RuntimeError(f"the limit did not start: {line!r}")


async def _listening(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


@asynccontextmanager
async def stack(folder: Path) -> AsyncIterator[Stack]:
    """A broker and a database of the run's own, ended with all children."""
    folder.mkdir(parents=True, exist_ok=True)
    async with Kafka(folder / "kafka") as kafka, Postgres(folder / "postgres") as postgres:
        made = Stack(kafka, postgres, folder)
        try:
            yield made
        finally:
            for process in list(made.children):
                made.end(process)


async def ends(bootstrap: str, topic: str) -> int:
    """How many offsets the topic has in all."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, n) for n in range(PARTITIONS)]
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()


async def span_s(bootstrap: str, topic: str) -> tuple[float, float]:
    """Seconds between a topic's first and last record (broker's time), and the mean record size in bytes."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, n) for n in range(PARTITIONS)]
        consumer.assign(partitions)
        begin, end = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        times: list[int] = []
        sizes: list[int] = []
        for tp in partitions:
            if end[tp] == begin[tp]:
                continue
            for offset in (begin[tp], end[tp] - 1):
                consumer.seek(tp, offset)
                record = await asyncio.wait_for(consumer.getone(tp), 30)
                times.append(record.timestamp)
                sizes.append(len(record.value or b"") + sum(len(k) + len(v) + 2 for k, v in record.headers))
        return (max(times) - min(times)) / 1000, sum(sizes) / len(sizes)
    finally:
        await consumer.stop()

"""Where the tests' Kafka and Postgres come from: an environment variable, else the local stack, else containers.

`MILLRACE_KAFKA` / `MILLRACE_POSTGRES` name running servers. `MILLRACE_TEST_INFRA=containers` starts them from the
images that `deploy/images.env` pins. Nothing is imported, started or needed before the first test asks.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient

from millrace_devstack.kafka import Kafka
from millrace_devstack.postgres import Postgres
from millrace_kafka.client import Cluster
from millrace_kafka.topics import SUFFIX

ROOT = Path(__file__).parents[2]
HOMES = ROOT / ".millrace" / "tests"


def wants_containers() -> bool:
    """Whether the run was told to use a container engine."""
    return os.environ.get("MILLRACE_TEST_INFRA") == "containers"


@asynccontextmanager
async def kafka_server() -> AsyncIterator[str]:
    """The bootstrap address of a broker that lives as long as the context."""
    if standing := os.environ.get("MILLRACE_KAFKA"):
        yield standing
    elif wants_containers():
        from tests.support import containers

        async with containers.kafka() as bootstrap:
            yield bootstrap
    else:
        kafka = Kafka(own_home() / "kafka")
        await kafka.start()
        try:
            yield kafka.bootstrap
        finally:
            await kafka.kill()
            _drop(kafka.home)


@asynccontextmanager
async def postgres_server() -> AsyncIterator[str]:
    """The superuser's connection string of a server that lives as long as the context."""
    if standing := os.environ.get("MILLRACE_POSTGRES"):
        yield standing
    elif wants_containers():
        from tests.support import containers

        async with containers.postgres() as dsn:
            yield dsn
    else:
        postgres = Postgres(own_home() / "postgres", fsync=False)
        await postgres.start()
        try:
            yield postgres.dsn()
        finally:
            await postgres.kill()
            _drop(postgres.home)


async def execute(dsn: str, statement: str) -> None:
    """Run one statement on a connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def end_session(dsn: str, name: str) -> None:
    """What the server does to a session that says nothing for too long: it ends those of this application name."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = $1 AND datname = current_database()",
            name,
        )
    finally:
        await connection.close()


async def drop_topics(cluster: Cluster) -> None:
    """Delete every topic of the cluster's namespace, so that a session's broker stays small."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        prefix = cluster.topic("").removesuffix(SUFFIX)
        if own := [topic for topic in await admin.list_topics() if topic.startswith(prefix)]:
            await admin.delete_topics(own)
    finally:
        await admin.close()


def own_home() -> Path:
    """This run's folder for server data. Folders of runs that are dead are removed on the way."""
    if HOMES.exists():
        for home in HOMES.iterdir():
            if home.name.isdigit() and not _runs(int(home.name)):
                shutil.rmtree(home, ignore_errors=True)
    home = HOMES / str(os.getpid())
    home.mkdir(parents=True, exist_ok=True)
    return home


def _drop(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    with suppress(OSError):
        # Empty when the other server's folder is gone too.
        home.parent.rmdir()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

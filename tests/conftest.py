"""Fixtures every tier shares. Collecting needs no server; the first test that asks for one starts it, for the session.

`kafka` and `postgres` are one server each for the whole session; tests are kept apart by a random namespace
(`cluster`) and a fresh database (`database`).
"""

import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import pytest

from millrace_kafka.client import Cluster
from tests.support import infra


def pytest_report_header() -> str:
    """Say where the servers will come from."""
    source = "containers" if infra.wants_containers() else "the local stack"
    return f"millrace: Kafka and Postgres come from MILLRACE_KAFKA / MILLRACE_POSTGRES where set, else from {source}"


@pytest.fixture(scope="session")
async def kafka() -> AsyncIterator[str]:
    """The bootstrap address of a real broker."""
    async with infra.kafka_server() as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[str]:
    """A superuser's connection string of a real Postgres."""
    async with infra.postgres_server() as dsn:
        yield dsn


@pytest.fixture
async def cluster(kafka: str) -> AsyncIterator[Cluster]:
    """A namespace of the broker that is this test's alone. Its topics are deleted afterwards."""
    own = Cluster(bootstrap=kafka, namespace=f"t{secrets.token_hex(6)}")
    yield own
    await infra.drop_topics(own)


@pytest.fixture
async def database(postgres: str) -> AsyncIterator[str]:
    """The connection string of an empty database that is this test's alone."""
    name = f"t{secrets.token_hex(8)}"
    await infra.execute(postgres, f'CREATE DATABASE "{name}" TEMPLATE template0')
    yield urlunsplit(urlsplit(postgres)._replace(path=f"/{name}"))
    await infra.execute(postgres, f'DROP DATABASE "{name}" WITH (FORCE)')

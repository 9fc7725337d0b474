"""The same servers from container images, for machines that have an engine. Imported only when asked for.

Images come from `deploy/images.env`, settings from `millrace_devstack`: one place for each. The containers are
constructed without an engine (a test asserts their pins); only starting them needs one.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from millrace_devstack import kafka as local_kafka
from millrace_devstack import ports, probes
from tests.support.waiting import eventually

IMAGES = Path(__file__).parents[2] / "deploy" / "images.env"
START_S = 120.0
PASSWORD = "millrace"
CONTROLLER_PORT = 9093


def images() -> Mapping[str, str]:
    """Every pin of `deploy/images.env` by its name."""
    lines = (line.strip() for line in IMAGES.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def kafka_container(port: int, *, api_version: str | None = None) -> Any:
    """A broker container, not started, that advertises `port` of this machine. Without `api_version` the engine is
    asked for its own, so there must be one."""
    from testcontainers.core.container import DockerContainer

    settings = {
        **local_kafka.SETTINGS,
        "listeners": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://localhost:{CONTROLLER_PORT}",
        "advertised.listeners": f"PLAINTEXT://{ports.HOST}:{port}",
        "controller.quorum.voters": f"1@localhost:{CONTROLLER_PORT}",
    }
    container = DockerContainer(images()["KAFKA_IMAGE"], docker_client_kw=_client(api_version))
    container = container.with_bind_ports(port, port)
    for name, value in settings.items():
        container = container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
    return container


def postgres_container(port: int, *, api_version: str | None = None) -> Any:
    """A server container, not started, on `port` of this machine."""
    from testcontainers.core.container import DockerContainer

    return (
        DockerContainer(images()["POSTGRES_IMAGE"], docker_client_kw=_client(api_version))
        .with_bind_ports(5432, port)
        .with_env("POSTGRES_PASSWORD", PASSWORD)
        .with_command("postgres -c fsync=off -c max_connections=200")
    )


def _client(api_version: str | None) -> dict[str, str]:
    return {} if api_version is None else {"version": api_version}


@asynccontextmanager
async def kafka() -> AsyncIterator[str]:
    """A running broker's address."""
    port = ports.free_port()
    async with _running(kafka_container(port)):
        await eventually(lambda: probes.kafka_answers(port), timeout_s=START_S, what="Kafka's container")
        yield f"{ports.HOST}:{port}"


@asynccontextmanager
async def postgres() -> AsyncIterator[str]:
    """A running server's connection string."""
    port = ports.free_port()
    async with _running(postgres_container(port)):
        await eventually(lambda: probes.postgres_answers(port), timeout_s=START_S, what="Postgres' container")
        yield f"postgresql://postgres:{PASSWORD}@{ports.HOST}:{port}/postgres"


@asynccontextmanager
async def _running(container: Any) -> AsyncIterator[None]:
    await asyncio.to_thread(container.start)
    try:
        yield
    finally:
        await asyncio.to_thread(container.stop)

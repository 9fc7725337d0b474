"""Fixtures of this tier: one API for all tests about it."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import pytest

from millrace_kafka.client import Cluster
from tests.support import infra
from tests.support.api_world import ApiWorld, api_world


@pytest.fixture(scope="session")
async def api(kafka: str, postgres: str) -> AsyncIterator[ApiWorld]:
    """A real API with two accounts. Tests add to it and never count what is there."""
    name = f"api{secrets.token_hex(6)}"
    await infra.execute(postgres, f'CREATE DATABASE "{name}" TEMPLATE template0')
    dsn = urlunsplit(urlsplit(postgres)._replace(path=f"/{name}"))
    made: asyncio.Future[ApiWorld] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def host() -> None:
        # Set-up and end of a fixture are different tasks; a task group wants to be left by the one that entered it.
        try:
            async with api_world(Cluster(kafka, namespace=name), dsn) as world:
                made.set_result(world)
                await over.wait()
        except BaseException as error:
            if not made.done():
                made.set_exception(error)
            raise

    hosting = asyncio.ensure_future(host())
    yield await made
    over.set()
    await hosting
    await infra.execute(postgres, f'DROP DATABASE "{name}" WITH (FORCE)')

"""One Millrace of processes for all end-to-end tests: every service, two matchers, two accounts, a sink."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import pytest

from millrace_kafka.client import Cluster
from tests.support import infra
from tests.support.platform import SERVICES, Platform
from tests.support.sink import Sink, sink
from tests.support.user import User


@dataclass(frozen=True, slots=True)
class Millrace:
    """`user` and `stranger` are keys with every scope, of two accounts."""

    platform: Platform
    cluster: Cluster
    user: User
    stranger: User
    sink: Sink


@pytest.fixture(scope="package")
async def millrace(kafka: str, postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Millrace]:
    """Everything ready. Tests tell their things apart by the identifiers they choose."""
    name = f"way{secrets.token_hex(6)}"
    await infra.execute(postgres, f'CREATE DATABASE "{name}" TEMPLATE template0')
    dsn = urlunsplit(urlsplit(postgres)._replace(path=f"/{name}"))
    platform = Platform(kafka, dsn, name, tmp_path_factory.mktemp("millrace"))
    cluster = Cluster(kafka, namespace=name)
    try:
        await asyncio.to_thread(platform.prepare, partitions=4)
        keys = [await asyncio.to_thread(platform.new_key, account) for account in ("user", "stranger")]
        for service in SERVICES:
            platform.start(service)
        platform.start("matcher", replica="matcher-2")
        await platform.ready(timeout_s=120)
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout) as session, sink() as made:
            user, stranger = (User(session, platform.url("api"), platform.url("gateway"), key) for key in keys)
            await user.welcome()
            await stranger.welcome()
            yield Millrace(platform, cluster, user, stranger, made)
    except BaseException:
        for replica in platform.running:
            print(f"── {replica}\n{platform.tail(replica, 15)}")
        raise
    finally:
        await asyncio.to_thread(platform.stop)
        await infra.drop_topics(cluster)
        await infra.execute(postgres, f'DROP DATABASE "{name}" WITH (FORCE)')

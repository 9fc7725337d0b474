"""A broker that wants TLS and a password: everything of ours gets in, and whoever has the wrong ones is told so."""

import datetime
import ipaddress
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from millrace_core.clock import SystemClock
from millrace_core.errors import Fatal, Retry
from millrace_core.record import Output
from millrace_devstack.kafka import Kafka, Proxied
from millrace_devstack.ports import free_port
from millrace_kafka.admin import Admin, create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from millrace_kafka.security import Security
from tests.support.platform import Platform

USER, PASSWORD = "millrace", secrets.token_urlsafe(16)


@dataclass(frozen=True, slots=True)
class Guarded:
    """The broker's guarded address, and the way in."""

    bootstrap: str
    security: Security
    folder: Path

    def cluster(self, security: Security | None = None) -> Cluster:
        return Cluster(self.bootstrap, f"t{secrets.token_hex(4)}", security=security or self.security)


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for this machine that is its own authority, and the same with its key behind it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.fromtimestamp(SystemClock().now_ms() / 1000, datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public, both = folder / f"{name}.pem", folder / f"{name}-with-key.pem"
    public.write_bytes(certificate)
    both.write_bytes(private + certificate)
    return public, both


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder, port = tmp_path_factory.mktemp("guarded"), free_port()
    authority, store = _certificate(folder, "broker")
    login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    settings = {
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:SASL_SSL,CONTROLLER:PLAINTEXT",
        "listener.name.proxied.ssl.keystore.type": "PEM",
        "listener.name.proxied.ssl.keystore.location": str(store),
        "listener.name.proxied.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.proxied.plain.sasl.jaas.config": f'{login} required user_{USER}="{PASSWORD}";',
    }
    async with Kafka(folder / "kafka", heap="320m", proxied=Proxied(port, port), settings=settings):
        yield Guarded(f"127.0.0.1:{port}", Security("sasl_ssl", "PLAIN", USER, PASSWORD, authority), folder)


async def test_plain_and_transactional_writers_readers_and_views_get_in(guarded: Guarded) -> None:
    cluster = guarded.cluster()
    await create_topics(cluster, partitions=1)
    producer, writer = PlainProducer(cluster), ControlWriter(cluster)
    view = ControlView(cluster, followers={}, clock=SystemClock())
    await producer.start()
    try:
        await producer.write([Output("events", b"key", b"value")])
        await writer.start()
        position = await writer.write([("key", "acc_1", "key_1", 1, b"{}")])
        await view.start()
        assert view.position >= position
    finally:
        await view.stop()
        await writer.stop()
        await producer.stop()
    assert [record.value for record in await read_all(cluster, ["events"])] == [b"value"]


async def test_services_and_tools_get_in(guarded: Guarded, tmp_path: Path) -> None:
    platform = Platform(
        guarded.bootstrap,
        "postgresql://nobody@127.0.0.1:1/none",
        f"t{secrets.token_hex(4)}",
        tmp_path,
        extra_env={
            "MILLRACE_KAFKA_PROTOCOL": "sasl_ssl",
            "MILLRACE_KAFKA_MECHANISM": "PLAIN",
            "MILLRACE_KAFKA_USERNAME": USER,
            "MILLRACE_KAFKA_PASSWORD": PASSWORD,
            "MILLRACE_KAFKA_CA": str(guarded.security.ca),
        },
    )
    platform.folder.mkdir(exist_ok=True)
    platform.tool("topics", "--partitions", "1")
    try:
        for name in ("gateway", "matcher", "orchestrator", "meter"):
            platform.start(name)
        await platform.ready()
    finally:
        platform.stop()


@pytest.mark.parametrize("wrong", ["password", "authority"])
async def test_who_has_the_wrong_ones_is_told_and_no_secret_is_shown(guarded: Guarded, wrong: str) -> None:
    stranger, _ = _certificate(guarded.folder, "stranger")
    change = {"password": "not-" + PASSWORD} if wrong == "password" else {"ca": stranger}
    cluster = guarded.cluster(replace(guarded.security, **change))
    with pytest.raises(Retry) as refused:
        async with Admin(cluster):
            pass
    assert PASSWORD not in str(refused.value)
    assert PASSWORD not in repr(cluster)


@pytest.mark.parametrize(
    ("security", "says"),
    [
        (Security("sasl_ssl", username="me"), "MILLRACE_KAFKA_PASSWORD"),
        (Security("plaintext", username="me", password="x"), "knows no user"),
        (Security("sasl_plaintext", username="me", password="x", ca=Path("ca.pem")), "uses no TLS"),
        (Security("ssl", key=Path("key.pem")), "MILLRACE_KAFKA_CERTIFICATE"),
        (Security("ssl", ca=Path("/nowhere/ca.pem")), "/nowhere/ca.pem"),
    ],
)
def test_a_contradiction_is_told_before_anything_connects(security: Security, says: str) -> None:
    with pytest.raises(Fatal, match=says):
        security.options()

"""Outgoing HTTP against real sockets on loopback: the guard, every way a receiver can fail, and kept connections."""

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from millrace_core import egress
from millrace_core.errors import Reject
from millrace_runtime.egress import Answer, Egress, OutgoingFailed
from tests.support.receiver import OK, Receiver, Request, answers, answers_status, receiving
from tests.support.waiting import eventually

LOOPBACK = egress.networks("127.0.0.0/8,::1/128")


async def post(door: Egress, url: str, *, account: str = "a", body: bytes = b"{}", **more: Any) -> Answer:
    target = egress.check_url(url, LOOPBACK)
    head = egress.request_head("POST", target, {"x-id": "1"})
    return await door.send(target, account=account, head=head, body=body, **{"timeout_s": 2.0, **more})


async def failing(door: Egress, receiver: Receiver, **more: Any) -> OutgoingFailed:
    with pytest.raises(OutgoingFailed) as failed:
        await post(door, receiver.url(), **more)
    return failed.value


# ── the guard ───────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_literal_private_address_is_not_connected_to() -> None:
    async with receiving() as receiver:
        door = Egress()
        failed = await failing(door, receiver)
        assert failed.code == "address_refused"
        assert "loopback" in str(failed)
        assert receiver.connections == 0


async def test_a_name_that_resolves_to_loopback_is_not_connected_to() -> None:
    async with receiving() as receiver:
        with pytest.raises(OutgoingFailed) as failed:
            await post(Egress(), receiver.url(host="localhost"))
        assert failed.value.code == "address_refused"
        assert receiver.connections == 0


async def test_a_name_that_rebinds_is_judged_each_time_and_connected_where_it_was_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first look-up answers with an allowed address, every later one with a refused one: as long as each
    connection goes to what was judged for it, the second connection cannot reach anything."""
    async with receiving(answers_status(200, headers="connection: close\r\n")) as receiver:
        loop = asyncio.get_running_loop()
        looked_up: list[str] = []

        async def rebinding(host: str, port: int, **_more: object) -> list[Any]:
            looked_up.append(host)
            address = "127.0.0.1" if len(looked_up) == 1 else "10.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(loop, "getaddrinfo", rebinding)
        door = Egress(allow=LOOPBACK)
        assert (await post(door, receiver.url(host="rebind.example"))).status == 200
        with pytest.raises(OutgoingFailed, match=r"10\.0\.0\.1"):
            await post(door, receiver.url(host="rebind.example"))
        assert looked_up == ["rebind.example"] * 2
        assert receiver.connections == 1


async def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def mixed(_host: str, port: int, **_more: object) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::ffff:10.0.0.1", port, 0, 0)),
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", mixed)
    with pytest.raises(OutgoingFailed, match="IPv4-mapped"):
        await post(Egress(), "http://mixed.example/")


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with receiving() as inner, receiving(answers_status(302, headers=f"location: {inner.url()}\r\n")) as outer:
        answer = await post(Egress(allow=LOOPBACK), outer.url())
        assert answer.status == 302
        assert inner.connections == 0


async def test_proxies_from_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, receiving() as receiver:
        monkeypatch.setenv("HTTP_PROXY", proxy.url(""))
        monkeypatch.setenv("http_proxy", proxy.url(""))
        await post(Egress(allow=LOOPBACK), receiver.url())
        assert (proxy.connections, receiver.connections) == (0, 1)


# ── what can be wrong with the other side ───────────────────────────────────────────────────────────────────────────
async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(OutgoingFailed) as failed:
            await post(Egress(allow=LOOPBACK), f"http://127.0.0.1:{port}/")
        assert failed.value.code == "connect_failed"


async def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(OutgoingFailed) as failed:
        await post(Egress(allow=LOOPBACK), "http://does-not-exist.invalid/")
    assert failed.value.code in ("dns_failed", "timeout")


async def test_a_receiver_that_hangs_is_left_when_the_time_is_over() -> None:
    async def hangs(_request: Request, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with receiving(hangs) as receiver:
        failed = await failing(Egress(allow=LOOPBACK), receiver, timeout_s=0.5)
        assert failed.code == "timeout"
        assert str(failed).startswith("no answer came within")


async def test_a_receiver_that_drips_its_answer_is_left_when_the_time_is_over() -> None:
    async def drips(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.005)

    async with receiving(drips) as receiver:
        failed = await failing(Egress(allow=LOOPBACK), receiver, timeout_s=1.0)
        assert failed.code == "timeout"
        assert str(failed).startswith("the answer did not end within")


@pytest.mark.parametrize(
    "after", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"]
)
@pytest.mark.parametrize("resets", [True, False])
async def test_a_connection_that_ends_too_early(after: bytes, resets: bool) -> None:
    async def ends(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(after)
        await writer.drain()
        if resets:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        writer.close()

    async with receiving(ends) as receiver:
        assert (await failing(Egress(allow=LOOPBACK), receiver)).code == "connection_lost"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\xfe garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: nine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http(garbage: bytes) -> None:
    async with receiving(answers(garbage)) as receiver:
        failed = await failing(Egress(allow=LOOPBACK), receiver)
        assert failed.code == "bad_response"


async def test_headers_without_an_end_are_cut_off() -> None:
    async def endless(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x-filler: " + b"y" * 1000 + b"\r\n")
            await writer.drain()

    async with receiving(endless) as receiver:
        failed = await failing(Egress(allow=LOOPBACK), receiver)
        assert failed.code == "bad_response"
        assert "headers" in str(failed)


async def test_an_answer_of_100_mb_is_cut_and_its_connection_closed() -> None:
    sent = 0

    async def floods(_request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n")
        for _ in range(1600):
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with receiving(floods) as receiver:
        answer = await post(Egress(allow=LOOPBACK), receiver.url(), read_bytes_max=100_000)
        assert (answer.status, len(answer.body), answer.is_cut) == (200, 100_000, True)
        await eventually(lambda: receiver.in_flight == 0, timeout_s=5)
        assert sent < 50 * 1_048_576


# ── ways to answer that are right ───────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (OK, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\nx-trailer: 1\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
    ],
)
async def test_a_right_answer_in_any_framing(raw: bytes, body: bytes) -> None:
    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        if raw.startswith(b"HTTP/1.0"):
            writer.close()

    async with receiving(answer) as receiver:
        given = await post(Egress(allow=LOOPBACK), receiver.url())
        assert 200 <= given.status < 300
        assert given.body == body


async def test_the_request_arrives_as_it_was_written() -> None:
    async with receiving() as receiver:
        await post(Egress(allow=LOOPBACK), receiver.url("/a?b=%20"), body=b"\x00\xffbytes")
        request = receiver.requests[0]
        assert request.line == "POST /a?b=%20 HTTP/1.1"
        assert request.body == b"\x00\xffbytes"
        assert request.headers == {"host": f"127.0.0.1:{receiver.port}", "x-id": "1", "content-length": "7"}


# ── kept connections ────────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_connection_is_kept_for_its_account_and_for_no_other() -> None:
    async with receiving() as receiver:
        door = Egress(allow=LOOPBACK)
        for _ in range(3):
            await post(door, receiver.url(), account="a")
        assert receiver.connections == 1
        await post(door, receiver.url(), account="b")
        assert receiver.connections == 2
        await door.close()


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced() -> None:
    async with receiving() as receiver:
        door = Egress(allow=LOOPBACK)
        await post(door, receiver.url())
        receiver.close_connections()
        assert (await post(door, receiver.url())).status == 200
        assert receiver.connections == 2


async def test_a_kept_connection_that_dies_with_the_request_is_sent_again_once() -> None:
    async with receiving() as receiver:
        door = Egress(allow=LOOPBACK)
        await post(door, receiver.url())

        async def drops(_request: Request, writer: asyncio.StreamWriter) -> None:
            receiver.answer = answers(OK)
            writer.close()

        receiver.answer = drops
        assert (await post(door, receiver.url())).status == 200
        assert len(receiver.requests) == 3


async def test_an_unasked_answer_ends_the_connection() -> None:
    """Else the next request would be given an answer that was smuggled in before it was asked."""
    async with receiving(answers(OK + b"HTTP/1.1 500 NO\r\ncontent-length: 0\r\n\r\n")) as receiver:
        door = Egress(allow=LOOPBACK)
        assert (await post(door, receiver.url())).status == 200
        receiver.answer = answers(OK)
        assert (await post(door, receiver.url())).status == 200
        assert receiver.connections == 2


async def test_the_kept_are_bounded_and_the_oldest_goes_first() -> None:
    async with receiving() as receiver:
        door = Egress(allow=LOOPBACK, kept_max=2)
        for account in "abc":
            await post(door, receiver.url(), account=account)
        await post(door, receiver.url(), account="c")
        await post(door, receiver.url(), account="b")
        assert receiver.connections == 3
        await post(door, receiver.url(), account="a")
        assert receiver.connections == 4


async def test_a_cancelled_request_leaves_no_connection_behind() -> None:
    async def hangs(_request: Request, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with receiving(hangs) as receiver:
        door = Egress(allow=LOOPBACK)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(post(door, receiver.url()))
            await eventually(lambda: receiver.in_flight == 1, timeout_s=5)
            asked.cancel()
        receiver.answer = answers(OK)
        assert (await post(door, receiver.url())).status == 200
        assert receiver.connections == 2


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def self_signed(name: str) -> bytes:
    """Key and certificate, as one PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)  # noqa: TID251 - the TLS library compares with the machine's clock
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem + certificate.public_bytes(serialization.Encoding.PEM)


async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_bytes(self_signed("localhost"))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(cert)
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(OutgoingFailed) as failed:
            await post(Egress(allow=LOOPBACK), f"https://localhost:{port}/")
        assert failed.value.code == "tls_failed"
        trusting = ssl.create_default_context(cafile=str(cert))
        door = Egress(allow=LOOPBACK, tls=trusting)
        assert (await post(door, f"https://localhost:{port}/")).status == 200
        with pytest.raises(OutgoingFailed, match="TLS"):
            await post(Egress(allow=LOOPBACK, tls=trusting), f"https://127.0.0.1:{port}/")
        await door.close()


async def test_a_url_of_a_number_is_refused_before_any_connection() -> None:
    with pytest.raises(Reject):
        await post(Egress(allow=LOOPBACK), "http://2130706433/")

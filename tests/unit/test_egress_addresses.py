"""Where outgoing HTTP may go, judged without a network: a corpus of addresses and of ways to write them."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core import egress
from millrace_core.errors import Reject

LOOPBACK = egress.networks("127.0.0.0/8, ::1/128")

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0",
          "192.167.255.255", "198.17.255.255", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001::8a",
          "2001:4860:4860::8888"]  # fmt: skip

REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.9",
    "169.254.169.254", "169.254.0.1", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.8", "192.0.0.192",
    "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1",
    "168.63.129.16", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:10::1",
    "2001:20::1", "2001:db8::1", "2002:7f00:1::1", "2002:808:808::1", "3fff::1", "4000::1", "5f00::1", "fc00::1",
    "fd00:ec2::254", "fdff::1", "fe80::1", "febf::1", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip


@pytest.mark.parametrize("written", PUBLIC)
def test_a_public_address_may_be_sent_to(written: str) -> None:
    address = ipaddress.ip_address(written)
    assert egress.refusal(address) is None
    host = f"[{written}]" if address.version == 6 else written
    assert egress.check_url(f"https://{host}/hook").host == str(address)


@pytest.mark.parametrize("written", REFUSED)
def test_what_is_not_plainly_public_is_refused(written: str) -> None:
    address = ipaddress.ip_address(written)
    assert egress.refusal(address) is not None
    host = f"[{written}]" if address.version == 6 else written
    with pytest.raises(Reject, match="may not be sent to"):
        egress.check_url(f"https://{host}/hook")


@pytest.mark.parametrize("written", REFUSED)
def test_an_operator_may_allow_a_network(written: str) -> None:
    address = ipaddress.ip_address(written)
    assert egress.refusal(address, [ipaddress.ip_network(written)]) is None


def test_allowing_ipv4_loopback_does_not_allow_its_other_spellings() -> None:
    for written in ("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "::127.0.0.1"):
        assert egress.refusal(ipaddress.ip_address(written), LOOPBACK) is not None


@given(st.ip_addresses())
@settings(max_examples=300)
def test_nothing_that_python_calls_private_gets_through(address: egress.Address) -> None:
    if address.is_private or address.is_multicast or address.is_loopback or address.is_link_local:
        assert egress.refusal(address) is not None


NUMBERS = ["2130706433", "0x7f000001", "017700000001", "0x7f.1", "127.1", "127.0.1", "0177.0.0.1", "127.0.0.01",
           "0x7f.0x0.0x0.0x1", "1", "0", "0x", "127。0。0。1x.1", "foo.0x1", "foo.123", "256.256.256.256", "1.2.3.4.5",
           "127.0.0.0x1", "3232235521", "0300.0250.1", "00.0.0.0", "１２７.１"]  # fmt: skip


@pytest.mark.parametrize("host", NUMBERS)
def test_a_host_written_as_a_number_is_refused_whatever_the_operator_allows(host: str) -> None:
    with pytest.raises(Reject):
        egress.check_url(f"http://{host}/", egress.networks("0.0.0.0/0, ::/0"))


@pytest.mark.parametrize("host", ["127.0.0.1.", "１２７.０.０.１", "①②⑦.0.0.1", "127。0。0。1"])
def test_a_look_alike_of_an_address_is_judged_as_the_address(host: str) -> None:
    assert egress.check_url(f"http://{host}/", LOOPBACK).host == "127.0.0.1"
    with pytest.raises(Reject, match="loopback"):
        egress.check_url(f"http://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/",
        "example.com/hook",
        "javascript:alert(1)",
        "http://",
        "http:///path",
        "http://user:secret@example.com/",
        "http://example.com@127.0.0.1/",
        "http://127.0.0.1\\@example.com/",
        "http://example.com\\.evil.com/",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nX: y",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[127.0.0.1]/",
        "http://[v1.x]/",
        "http://-bad.example.com/",
        "http://a..b/",
        "http://.example.com/",
        "http://exa%6dple.com/",
        "http://ex*mple.com/",
        "http://" + "a" * 64 + ".com/",
        "http://example.com/" + "a" * 2050,
        "http://example.com/\x00",
        "http://example.com/${input}",
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(Reject) as refused:
        egress.check_url(url, LOOPBACK)
    assert len(str(refused.value)) > 10


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://Example.COM", "example.com", 443, "/", "example.com"),
        ("http://example.com.:8080/a/b?c=d&e=%20f#frag", "example.com", 8080, "/a/b?c=d&e=%20f", "example.com:8080"),
        ("http://127.0.0.1:9/x", "127.0.0.1", 9, "/x", "127.0.0.1:9"),
        ("http://[::1]:80/", "::1", 80, "/", "[::1]"),
        (
            "https://bücher.example/ä?ö=ü",
            "xn--bcher-kva.example",
            443,
            "/%C3%A4?%C3%B6=%C3%BC",
            "xn--bcher-kva.example",
        ),
        ("http://my_host.internal-name.local/", "my_host.internal-name.local", 80, "/", "my_host.internal-name.local"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, path: str, authority: str) -> None:
    target = egress.check_url(url, LOOPBACK)
    assert (target.host, target.port, target.path, target.authority) == (host, port, path, authority)


def test_an_allow_list_that_cannot_be_read_names_what_is_wrong() -> None:
    assert egress.networks("") == ()
    with pytest.raises(Reject, match=r"10\.0\.0\.1/8"):
        egress.networks("127.0.0.0/8,10.0.0.1/8")


def test_headers_cannot_break_the_request() -> None:
    egress.check_headers({"X-Token": 'a b;c="d"', "accept": "text/plain"})
    for name, value in (("x\r\ny", "1"), ("x y", "1"), ("", "1"), ("x", "a\r\nb"), ("x", "a\nb"), ("x", "\x00"),
                        ("x", "€"), ("Host", "a"), ("Content-Length", "1"), ("transfer-encoding", "chunked"),
                        ("Connection", "close"), ("webhook-id", "x")):  # fmt: skip
        with pytest.raises(Reject):
            egress.check_headers({name: value}, ours=frozenset({"webhook-id"}))


def test_the_request_head_ends_its_lines() -> None:
    head = egress.request_head("POST", egress.check_url("https://example.com/a?b=c"), {"x-a": "1"})
    assert head == b"POST /a?b=c HTTP/1.1\r\nhost: example.com\r\nx-a: 1\r\n"

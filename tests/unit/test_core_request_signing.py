"""The ops surface's signature: the published vectors, and everything that must not pass."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from millrace_core import request_signing
from millrace_core.errors import Reject
from millrace_core.request_signing import Signed, check_signature, check_time, read, sign

PUBLISHED = orjson.loads((Path(__file__).parents[1] / "vectors" / "request_signing.json").read_bytes())
VECTORS: list[dict[str, str]] = PUBLISHED["vectors"]
SECRET: str = PUBLISHED["secret"]
POST = VECTORS[2]


def asked(vector: dict[str, str]) -> dict[str, Any]:
    return {"method": vector["method"], "target": vector["target"].encode(), "body": vector["body"].encode()}


def headers(**changes: str | None) -> list[tuple[bytes, bytes]]:
    given: dict[str, str | None] = {
        "x-opsiq-key": PUBLISHED["key"],
        "x-opsiq-timestamp": POST["timestamp"],
        "x-opsiq-nonce": POST["nonce"],
        "x-opsiq-signature": POST["signature"],
    }
    given |= {name.replace("_", "-"): value for name, value in changes.items()}
    return [(name.encode(), value.encode()) for name, value in given.items() if value is not None]


def signed() -> Signed:
    found = read(headers())
    assert found is not None
    return found


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_published_vectors_hold(vector: dict[str, str]) -> None:
    made = sign(SECRET, timestamp=vector["timestamp"], nonce=vector["nonce"], **asked(vector))
    assert made == vector["signature"]
    said = Signed(PUBLISHED["key"], vector["timestamp"], vector["nonce"], vector["signature"])
    check_signature(said, SECRET, **asked(vector))


def test_what_is_not_signed_is_told_from_what_is() -> None:
    assert read([(b"authorization", b"Bearer x")]) is None
    assert read([(b"X-OpsIQ-Key".lower(), b"k"), *headers(x_opsiq_key=None)]) is not None
    assert signed() == Signed(PUBLISHED["key"], POST["timestamp"], POST["nonce"], POST["signature"])


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"},
        {"target": b"/v1/events/fire?"},
        {"target": b"/v1/events/fire/"},
        {"body": b""},
        {"body": POST["body"].encode() + b"\n"},
    ],
)
def test_another_request_is_not_what_was_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(Reject, match="is not right") as refusal:
        check_signature(signed(), SECRET, **(asked(POST) | changes))
    assert SECRET not in str(refusal.value)
    assert POST["signature"][7:] not in str(refusal.value)


def test_another_secret_time_or_nonce_is_not_what_was_signed() -> None:
    with pytest.raises(Reject):
        check_signature(signed(), SECRET + "x", **asked(POST))
    for changed in (headers(x_opsiq_nonce="another-nonce"), headers(x_opsiq_timestamp="1780000001")):
        found = read(changed)
        assert found is not None
        with pytest.raises(Reject, match="is not right"):
            check_signature(found, SECRET, **asked(POST))


def test_the_case_of_method_and_digits_makes_no_difference() -> None:
    found = read(headers(x_opsiq_signature="sha256=" + POST["signature"][7:].upper()))
    assert found is not None
    check_signature(found, SECRET, **(asked(POST) | {"method": "post"}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x_opsiq_timestamp": None}, "X-OpsIQ-Timestamp is missing"),
        ({"x_opsiq_nonce": ""}, "X-OpsIQ-Nonce is missing"),
        ({"x_opsiq_signature": None}, "X-OpsIQ-Signature is missing"),
        ({"x_opsiq_timestamp": "2026-01-01"}, "Unix seconds"),
        ({"x_opsiq_timestamp": "-1"}, "Unix seconds"),
        ({"x_opsiq_timestamp": "1" * 13}, "Unix seconds"),
        ({"x_opsiq_nonce": "short"}, "8 to 128"),
        ({"x_opsiq_nonce": "x" * 129}, "8 to 128"),
        ({"x_opsiq_nonce": "with a space"}, "8 to 128"),
        ({"x_opsiq_nonce": "nonce-é-nonce"}, "8 to 128"),
        ({"x_opsiq_signature": "sha256=abc"}, "64 hexadecimal digits"),
        ({"x_opsiq_signature": "sha512=" + "a" * 64}, "64 hexadecimal digits"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(changes: dict[str, str | None], says: str) -> None:
    with pytest.raises(Reject, match=says):
        read(headers(**changes))


def test_a_header_twice_is_refused() -> None:
    with pytest.raises(Reject, match="X-OpsIQ-Nonce is there twice"):
        read([*headers(), (b"x-opsiq-nonce", b"another-one")])


def test_a_request_holds_for_five_minutes_before_and_after() -> None:
    at = int(POST["timestamp"])
    for near in (at - 300, at, at + 300):
        check_time(signed(), now_s=near)
    with pytest.raises(Reject, match="300 s ago"):
        check_time(signed(), now_s=at + 300.1)
    with pytest.raises(Reject, match="300 s ahead"):
        check_time(signed(), now_s=at - 300.1)
    assert signed().valid_until_s > at + 300


def test_all_four_headers_are_named() -> None:
    assert request_signing.HEADERS == ("X-OpsIQ-Key", "X-OpsIQ-Timestamp", "X-OpsIQ-Nonce", "X-OpsIQ-Signature")

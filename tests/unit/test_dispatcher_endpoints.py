"""Endpoints as they are followed and prepared; what is signed; what is claimed."""

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from standardwebhooks import Webhook

from millrace_core import egress, limits, signing
from millrace_core.clock import ManualClock
from millrace_core.errors import Reject
from millrace_core.keyring import KeyRing, endpoint_secret, new_ring_entry
from millrace_core.messages import Delivery, EndpointControl, Raw, encode, encode_with_payload
from millrace_core.record import Written
from millrace_dispatcher import sending
from millrace_dispatcher.claims import Claims
from millrace_dispatcher.endpoints import Endpoints

RING = KeyRing.parse(new_ring_entry("k1"))
BODY = b'{"id":"evt_1","data":{"a":1e2,"b":"\\u00e4"}}'


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def control(
    endpoint: str = "we_1", *, account: str = "acc", secrets: tuple[str, ...] = (SECRET,), **more: Any
) -> bytes:
    sealed = tuple(RING.seal(secret, account=account, name=endpoint_secret(endpoint)) for secret in secrets)
    return encode(EndpointControl(**{"account": account, "url": "https://example.com/hook", "secrets": sealed, **more}))


def delivery(n: int = 1, *, attempt: int = 1) -> Delivery:
    return Delivery(
        id=f"dlv_{n:032x}", account="acc", endpoint="we_1", event="evt_" + "0" * 32, type="t", attempt=attempt,
        body=Raw(BODY),
    )  # fmt: skip


def followed(value: bytes, **more: Any) -> Endpoints:
    endpoints = Endpoints(RING, user_agent="Millrace/1", **more)
    endpoints.apply("acc", "we_1", value)
    return endpoints


def headers_of(head: bytes) -> dict[str, str]:
    lines = head.decode().split("\r\n")
    assert lines[-1] == ""
    return {name: value for name, _, value in (line.partition(": ") for line in lines[1:-1])}


def test_the_official_library_accepts_what_is_signed() -> None:
    now_ms = 1_800_000_000_123
    old, new = "whsec_" + "A" * 32, SECRET
    endpoint = followed(control(secrets=(new, old))).get("acc", "we_1")
    assert endpoint is not None
    headers = headers_of(sending.head(endpoint, delivery(), BODY, now_ms=now_ms))
    assert headers["webhook-timestamp"] == "1800000000"
    assert headers["webhook-id"] == delivery().id
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "Millrace/1"
    for secret in (old, new):
        signature = Webhook(secret).sign(
            headers["webhook-id"], datetime.fromtimestamp(1_800_000_000, UTC), BODY.decode()
        )
        assert signature in headers["webhook-signature"].split(" ")
        signing.verify(headers, BODY, [secret], now_s=1_800_000_000)


def test_the_ops_style_adds_its_own_headers() -> None:
    endpoint = followed(control(secrets=("os_live_plain",), style="ops")).get("acc", "we_1")
    assert endpoint is not None
    headers = headers_of(sending.head(endpoint, delivery(), BODY, now_ms=5_000))
    right = hmac.new(b"os_live_plain", BODY, hashlib.sha256).hexdigest()
    assert headers["X-OpsIQ-Signature"] == f"sha256={right}"
    assert headers["X-OpsIQ-Timestamp"] == "5"
    assert headers["X-OpsIQ-Idempotency-Key"] == delivery().event
    assert headers["X-OpsIQ-Delivery-Id"] == delivery().id
    assert headers["webhook-signature"].startswith("v1,")


def test_an_endpoint_of_another_account_is_not_found() -> None:
    endpoints = followed(control())
    assert endpoints.get("acc", "we_1") is not None
    assert endpoints.get("other", "we_1") is None
    endpoints.apply("acc", "we_2", control(account="other"))
    assert endpoints.get("acc", "we_2") is None


def test_a_change_is_seen_at_once_and_told() -> None:
    changed: list[tuple[str, str]] = []
    endpoints = followed(control(), on_change=changed.append)
    before = endpoints.get("acc", "we_1")
    endpoints.apply("acc", "we_1", control(url="https://example.org/new"))
    after = endpoints.get("acc", "we_1")
    assert before is not None
    assert after is not None
    assert (before.url, after.url) == ("https://example.com/hook", "https://example.org/new")
    endpoints.apply("acc", "we_1", None)
    assert endpoints.get("acc", "we_1") is None
    assert changed == [("acc", "we_1")] * 3


def test_a_damaged_value_counts_as_deleted() -> None:
    for value in (b"", b"\xff", b"{}", b'{"account":"acc"}', b"null"):
        assert followed(value).get("acc", "we_1") is None


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"url": "http://127.0.0.1/"}, "loopback"),
        ({"url": "http://2130706433/"}, "number"),
        ({"headers": {"Host": "x"}}, "Host"),
        ({"headers": {"webhook-id": "x"}}, "webhook-id"),
        ({"headers": {"x": "a\r\nb: c"}}, "control"),
        ({"secrets": ()}, "no signing secret"),
    ],
)
def test_what_makes_an_endpoint_unusable_is_said_and_not_raised(more: dict[str, Any], says: str) -> None:
    endpoint = followed(control(**more)).get("acc", "we_1")
    assert endpoint is not None
    assert endpoint.problem is not None
    assert says in endpoint.problem


def test_a_secret_under_an_unknown_key_or_of_another_place_is_said_and_not_shown() -> None:
    other = KeyRing.parse(new_ring_entry("k2"))
    for sealed in (
        other.seal("whsec_c2VjcmV0", account="acc", name=endpoint_secret("we_1")),
        RING.seal("whsec_c2VjcmV0", account="acc", name=endpoint_secret("we_2")),
        RING.seal("whsec_c2VjcmV0", account="b", name=endpoint_secret("we_1")),
    ):
        value = encode(EndpointControl(account="acc", url="https://example.com/", secrets=(sealed,)))
        endpoint = followed(value).get("acc", "we_1")
        assert endpoint is not None
        assert endpoint.problem is not None
        assert "c2VjcmV0" not in repr(endpoint) + endpoint.problem


def test_no_secret_shows_in_a_representation() -> None:
    endpoint = followed(control()).get("acc", "we_1")
    assert endpoint is not None
    assert endpoint.secrets
    assert "MfKQ9r8" not in repr(endpoint)


def test_bounds_are_kept_whatever_the_record_says() -> None:
    endpoint = followed(control(concurrency=10**6, timeout_s=1e9, retry_schedule_s=(1.0,) * 100)).get("acc", "we_1")
    assert endpoint is not None
    assert endpoint.concurrency == limits.ENDPOINT_CONCURRENCY_MAX
    assert endpoint.timeout_s == limits.WEBHOOK_TIMEOUT_S_MAX
    assert len(endpoint.schedule_s) == limits.WEBHOOK_ATTEMPTS_MAX - 1


def test_the_prepared_are_bounded() -> None:
    endpoints = Endpoints(RING, user_agent="x")
    for n in range(limits.ENDPOINTS_PREPARED_MAX + 10):
        endpoints.apply("acc", f"we_{n}", encode(EndpointControl(account="acc", url="https://e.com/", secrets=())))
        endpoints.get("acc", f"we_{n}")
    assert len(endpoints._prepared) == limits.ENDPOINTS_PREPARED_MAX
    assert endpoints.get("acc", "we_0") is not None


# ── claims ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def asked(offset: int, source: int | None, wanted: Delivery, *, partition: int = 0) -> Written:
    value, start = encode_with_payload(wanted, wanted.body)
    headers = (("p", start),) if source is None else (("p", start), ("source", b"events:0:%d" % source))
    return Written("deliveries", partition, offset, ManualClock().now_ms(), b"we_1", value, headers)


def verdict(claims: Claims, read: Written) -> str:
    claims.see(read)
    return claims.take(read)


def test_an_attempt_is_claimed_by_the_record_that_first_asked_for_it() -> None:
    claims = Claims()
    first, again = asked(10, 5, delivery()), asked(11, 5, delivery())
    assert verdict(claims, first) == "new"
    assert verdict(claims, again) == "repeat"
    assert verdict(claims, first) == "new"


def test_the_next_attempt_is_another_piece_of_work() -> None:
    claims = Claims()
    assert verdict(claims, asked(10, 5, delivery())) == "new"
    assert verdict(claims, asked(11, 5, delivery(attempt=2))) == "new"


def test_what_lies_below_the_window_is_stale() -> None:
    claims = Claims()
    assert verdict(claims, asked(10, limits.SOURCE_WINDOW_OFFSETS + 100, delivery(1))) == "new"
    assert verdict(claims, asked(11, 50, delivery(2))) == "stale"


def test_what_was_moved_late_is_not_stale_though_its_source_lies_far_back() -> None:
    """The lanes move what waits when there is no more room: behind newer deliveries that were moved as they came."""

    def moved(offset: int, source: int, n: int) -> Written:
        topic = "millrace.ns.deliveries-overflow.v1"
        return msgspec.structs.replace(asked(offset, source, delivery(n)), topic=topic)

    claims = Claims()
    assert verdict(claims, moved(10, limits.SOURCE_WINDOW_OFFSETS + 100, 1)) == "new"
    assert verdict(claims, moved(11, 50, 2)) == "new"
    assert verdict(claims, moved(12, limits.SOURCE_WINDOW_OFFSETS + 100, 1)) == "repeat"


def test_a_record_that_waits_for_its_turn_does_not_grow_stale() -> None:
    claims = Claims()
    waits = asked(10, 50, delivery(1))
    claims.see(waits)
    claims.see(asked(11, limits.SOURCE_WINDOW_OFFSETS + 1000, delivery(2)))
    claims.see(waits)
    assert claims.take(waits) == "new"


def test_a_new_owner_rebuilds_the_window_from_the_log() -> None:
    log = [asked(n, n, delivery(n)) for n in range(20)]
    log.insert(5, Written("deliveries", 0, 4, 0, None, b"garbage", (("source", b"events:0:3"),)))
    claims = Claims()
    claims.begin("deliveries", 0)
    for record in log:
        claims.recall(record)
    assert verdict(claims, asked(20, 20, delivery(20))) == "new"
    assert verdict(claims, asked(30, 7, delivery(7))) == "repeat"
    assert verdict(claims, asked(30, 7, delivery(7), partition=1)) == "new"
    claims.forget("deliveries", 0)
    assert verdict(claims, asked(32, 7, delivery(7))) == "new"


def test_the_record_that_claimed_may_be_handled_again_by_a_new_owner() -> None:
    """It was begun and not committed: the read-back ends before it, and later repeats of it are still dropped."""
    claims = Claims()
    claims.begin("deliveries", 0)
    for n in range(7):
        claims.recall(asked(n, n, delivery(n)))
    assert verdict(claims, asked(7, 7, delivery(7))) == "new"
    assert verdict(claims, asked(8, 7, delivery(7))) == "repeat"
    assert verdict(claims, asked(9, 6, delivery(6))) == "repeat"


def test_a_record_without_a_source_is_new() -> None:
    claims = Claims()
    for offset in (1, 2):
        assert verdict(claims, asked(offset, None, delivery())) == "new"


def test_the_allow_list_reaches_the_check() -> None:
    endpoint = followed(control(url="http://127.0.0.1:9/x"), allow=egress.networks("127.0.0.0/8")).get("acc", "we_1")
    assert endpoint is not None
    assert endpoint.problem is None
    with pytest.raises(Reject):
        egress.check_url("http://127.0.0.1:9/x")

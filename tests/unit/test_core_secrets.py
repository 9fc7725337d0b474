"""Signing, the key ring and API keys."""

import base64

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from millrace_core import credentials, signing
from millrace_core.errors import Fatal, Reject
from millrace_core.keyring import KeyRing, new_ring_entry

NOW = 1_800_000_000
BODY = b'{"id":"evt_1","data":{"n":1.10}}'


def official_now(monkeypatch: pytest.MonkeyPatch) -> int:
    """The official library reads the clock itself."""
    import datetime

    return int(datetime.datetime.now(datetime.UTC).timestamp())  # noqa: TID251


def test_the_official_library_accepts_what_we_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    now = official_now(monkeypatch)
    old, new = signing.new_secret(), signing.new_secret()
    headers = signing.signed_headers("dlv_1", now, BODY, [new, old])
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, headers) == {"id": "evt_1", "data": {"n": 1.10}}
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.new_secret()).verify(BODY, headers)


def test_we_accept_what_the_official_library_signs() -> None:
    import datetime

    secret = signing.new_secret()
    at = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    signature = Webhook(secret).sign("msg_1", at, BODY.decode())
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}
    signing.verify(headers, BODY, [secret], now_s=NOW)
    assert signature == signing.sign("msg_1", NOW, BODY, [secret])


def test_a_secret_without_prefix_is_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = "a plain secret, no base64!"
    headers = signing.signed_headers("dlv_1", NOW, BODY, [raw])
    assert (
        signing.sign("dlv_1", NOW, BODY, [f"whsec_{base64.b64encode(raw.encode()).decode()}"])
        == headers["webhook-signature"]
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"webhook-id": "dlv_2"}, "no signature is right"),
        ({"webhook-timestamp": str(NOW + 1)}, "no signature is right"),
        ({"webhook-timestamp": str(NOW - 301)}, "away from now"),
        ({"webhook-timestamp": "soon"}, "seconds since 1970"),
        ({"webhook-signature": "v1,AAAA v2,BBBB é"}, "no signature is right"),
        ({"webhook-signature": ""}, "are all needed"),
    ],
)
def test_what_was_changed_is_refused(changes: dict[str, str], says: str) -> None:
    secret = signing.new_secret()
    headers = signing.signed_headers("dlv_1", NOW, BODY, [secret]) | changes
    with pytest.raises(Reject, match=says):
        signing.verify(headers, BODY, [secret], now_s=NOW)


def test_a_damaged_secret_is_not_shown() -> None:
    with pytest.raises(Reject) as refused:
        signing.secret_bytes("whsec_not base64!")
    assert "not base64!" not in str(refused.value)


def test_a_sealed_secret_opens_only_in_its_place() -> None:
    ring = KeyRing.parse(new_ring_entry("a"))
    sealed = ring.seal("s3cret", account="acc_1", name="endpoint/we_1")
    assert "s3cret" not in sealed
    assert ring.open(sealed, account="acc_1", name="endpoint/we_1") == "s3cret"
    for account, name in (("acc_2", "endpoint/we_1"), ("acc_1", "endpoint/we_2"), ("acc_1endpoint", "/we_1")):
        with pytest.raises(Reject, match="does not open"):
            ring.open(sealed, account=account, name=name)
    with pytest.raises(Reject):
        ring.open(sealed[:-6] + "AAAAA=", account="acc_1", name="endpoint/we_1")
    for damaged in ("", "v1.a", "v2.a.AAAA", "v1.a.!!", "v1.a.AAAA"):
        with pytest.raises(Reject):
            ring.open(damaged, account="acc_1", name="endpoint/we_1")


def test_a_ring_turns() -> None:
    first, second = new_ring_entry("a"), new_ring_entry("b")
    sealed = KeyRing.parse(first).seal("s", account="acc", name="n")
    both = KeyRing.parse(f"{second}, {first}")
    assert both.open(sealed, account="acc", name="n") == "s"
    assert not both.is_current(sealed)
    anew = both.seal("s", account="acc", name="n")
    assert both.is_current(anew)
    assert KeyRing.parse(second).open(anew, account="acc", name="n") == "s"
    with pytest.raises(Reject, match="not on the key ring"):
        KeyRing.parse(second).open(sealed, account="acc", name="n")


@pytest.mark.parametrize(
    "text", ["", "a", "a:!!", "a:AAAA", f"{new_ring_entry('a')},{new_ring_entry('a')}", "a b:AAAA"]
)
def test_a_ring_that_cannot_be_read_ends_the_process(text: str) -> None:
    with pytest.raises(Fatal) as fatal:
        KeyRing.parse(text)
    assert "AAAA" not in str(fatal.value)


def test_a_ring_shows_nothing_of_itself() -> None:
    entry = new_ring_entry("a")
    assert entry.split(":")[1] not in repr(KeyRing.parse(entry))


@pytest.mark.parametrize(
    ("surface", "test", "prefix"),
    [
        ("ingest", False, "mr_live_"),
        ("automation", False, "mr_live_"),
        ("intake", False, "iozen_live_"),
        ("agents", False, "th_live_"),
        ("agents", True, "th_test_"),
        ("ops", False, "ok_live_"),
    ],
)
def test_a_key_has_its_surfaces_prefix(surface: credentials.Surface, test: bool, prefix: str) -> None:
    key = credentials.new_key(surface, test=test)
    assert key.startswith(prefix)
    assert len(key) == len(prefix) + 43
    assert credentials.hint(key) == f"{prefix}…{key[-4:]}"


def test_a_key_is_known_by_its_digest() -> None:
    pepper = credentials.parse_pepper("00" * 16)
    key = credentials.new_key("ingest")
    digest = credentials.key_digest(key, pepper=pepper)
    assert credentials.verify(key, digest, pepper=pepper)
    assert not credentials.verify(key + "x", digest, pepper=pepper)
    assert not credentials.verify(key, "é", pepper=pepper)
    assert not credentials.verify(key, digest, pepper=credentials.parse_pepper("a pepper of words, long enough"))
    with pytest.raises(Fatal):
        credentials.parse_pepper("short")
    assert credentials.hint("short") == "…"
    assert credentials.new_ops_secret().startswith("os_live_")

"""API keys in force: followed, looked up, forgotten; and who may what."""

import pytest

from millrace_core import messages
from millrace_core.clock import ManualClock
from millrace_web import scopes
from millrace_web.api_keys import Accounts, ApiKeys, bearer
from millrace_web.authentication import Authenticator
from millrace_web.errors import ApiError
from millrace_web.scopes import SCOPES, allows
from tests.support.ingesting import NOW_MS, PEPPER, key_control


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
def keys(clock: ManualClock) -> ApiKeys:
    return ApiKeys(pepper=PEPPER, clock=clock)


def test_a_key_is_found_by_its_text_alone(keys: ApiKeys) -> None:
    keys.apply("acc_1", "key_1", key_control("mr_live_a", scopes=("read:events",), plan="pro"))
    found = keys.find("mr_live_a")
    assert found is not None
    assert (found.account, found.id, found.plan, found.surface) == ("acc_1", "key_1", "pro", "ingest")
    assert found.may("read:events")
    assert not found.may("publish:events")
    for text in ("", "mr_live_b", "mr_live_a ", found.digest, "x" * 10_000):
        assert keys.find(text) is None


def test_a_changed_key_leaves_nothing_of_the_old_one(keys: ApiKeys) -> None:
    keys.apply("acc_1", "key_1", key_control("old"))
    keys.apply("acc_1", "key_1", key_control("new"))
    assert keys.find("old") is None
    assert keys.find("new") is not None
    assert len(keys) == 1
    keys.apply("acc_1", "key_1", None)
    assert keys.find("new") is None
    assert len(keys) == 0


def test_key_ids_of_two_accounts_do_not_meet(keys: ApiKeys) -> None:
    keys.apply("acc_1", "key_1", key_control("one"))
    keys.apply("acc_2", "key_1", key_control("two", account="acc_2"))
    keys.apply("acc_2", "key_1", None)
    assert keys.find("one") is not None


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"account":"acc_1"}', b"\xff"])
def test_a_damaged_value_is_no_key(keys: ApiKeys, value: bytes) -> None:
    keys.apply("acc_1", "key_1", key_control("a"))
    keys.apply("acc_1", "key_1", value)
    assert keys.find("a") is None


def test_a_key_that_claims_another_account_is_no_key(keys: ApiKeys) -> None:
    keys.apply("acc_1", "key_1", key_control("a", account="acc_2"))
    assert keys.find("a") is None


def test_an_expired_key_is_none(keys: ApiKeys, clock: ManualClock) -> None:
    keys.apply("acc_1", "key_1", key_control("a", expires_at=NOW_MS + 1))
    assert keys.find("a") is not None
    clock.advance(0.001)
    assert keys.find("a") is None


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([(b"authorization", b"Bearer abc")], "abc"),
        ([(b"authorization", b"bearer  abc ")], "abc"),
        ([(b"authorization", b"Basic abc")], None),
        ([(b"authorization", b"abc")], None),
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")], None),
        ([], None),
    ],
)
def test_bearer(headers: list[tuple[bytes, bytes]], text: str | None) -> None:
    assert bearer(headers) == text


def test_scopes() -> None:
    assert allows(frozenset({"*"}), "anything:at-all")
    assert allows(frozenset({"manage:jobs"}), "read:jobs")
    assert not allows(frozenset({"manage:jobs"}), "read:webhooks")
    assert not allows(frozenset({"read:jobs"}), "manage:jobs")
    assert not allows(frozenset(), "read:jobs")
    assert all(":" in scope or scope == scopes.ALL for scope in SCOPES)


def test_the_authenticator_answers_in_order(keys: ApiKeys) -> None:
    accounts, stale = Accounts(), ["is old"]
    authenticator = Authenticator(keys, accounts, stale=lambda: stale[0] if stale else None)
    keys.apply("acc_1", "key_1", key_control("a", scopes=("read:jobs",)))

    def status(text: str | None, scope: str) -> int:
        headers = [(b"authorization", b"Bearer " + text.encode())] if text else []
        try:
            authenticator.authenticate(headers, scope)
        except ApiError as error:
            return error.status
        return 200

    assert status("a", "read:jobs") == 503
    stale.clear()
    assert status(None, "read:jobs") == 401
    assert status("b", "read:jobs") == 401
    assert status("a", "manage:jobs") == 403
    assert status("a", "read:jobs") == 200
    accounts.apply("acc_1", "acc_1", b"damaged")
    assert status("a", "read:jobs") == 403
    accounts.apply("acc_1", "acc_1", messages.encode(messages.AccountControl()))
    assert status("a", "read:jobs") == 200

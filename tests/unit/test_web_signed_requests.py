"""From a signed request to the key in force, and what is refused on the way, before and after the body is read."""

from typing import Any

import pytest

from millrace_core.clock import ManualClock
from millrace_core.keyring import KeyRing, key_secret, new_ring_entry
from millrace_web.api_keys import Accounts, ApiKey, ApiKeys
from millrace_web.authentication import Authenticator
from millrace_web.errors import ApiError
from millrace_web.signed_requests import Signatures, SignedCall, target_of
from tests.support.ingesting import NOW_MS, PEPPER, key_control
from tests.support.signing import signed_headers

KEY, SECRET = "ok_live_" + "p" * 43, "os_live_" + "s" * 43
TARGET = "/v1/tickets?status=open&search=b%C3%BCro"
BODY = b'{"a": 1}'


class World:
    def __init__(self) -> None:
        self.clock = ManualClock(NOW_MS)
        self.ring = KeyRing.parse(new_ring_entry("a"))
        self.keys = ApiKeys(pepper=PEPPER, clock=self.clock)
        self.accounts = Accounts()
        self.stale: list[str] = []
        self.auth = Authenticator(
            self.keys,
            self.accounts,
            signatures=Signatures(self.ring, self.clock),
            stale=lambda: self.stale[0] if self.stale else None,
        )
        self.give(self.ring.seal(SECRET, account="acc_1", name=key_secret("key_1")))

    def give(self, secret: str | None, **changes: Any) -> None:
        changes = {"surface": "ops", "scopes": ("read:events",), "secret": secret} | changes
        self.keys.apply("acc_1", "key_1", key_control(KEY, **changes))

    def claimed(self, **changes: Any) -> SignedCall | None:
        return self.auth.signed(self.asgi(**changes))

    def proven(self, body: bytes = BODY, scope: str | None = None, **changes: Any) -> ApiKey:
        call = self.claimed(**changes)
        assert call is not None
        return self.auth.admitted(call.proven(body), scope)

    def asgi(self, *, method: str = "POST", target: str = TARGET, key: str = KEY, secret: str = SECRET) -> Any:
        headers = signed_headers(key, secret, "POST", TARGET, BODY, at_s=NOW_MS / 1000, nonce="nonce-0001")
        path, _, query = target.partition("?")
        return {
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }


@pytest.fixture
def world() -> World:
    return World()


def refusal(code: int) -> Any:
    return pytest.raises(ApiError, check=lambda error: error.status == code)


def test_a_signed_request_gives_its_key(world: World) -> None:
    call = world.claimed()
    assert call is not None
    assert call.nonce == "nonce-0001"
    assert call.proven(BODY).id == "key_1"
    assert world.proven(scope="read:events").account == "acc_1"


def test_what_is_not_signed_is_left_to_the_bearer(world: World) -> None:
    asgi = world.asgi() | {"headers": [(b"authorization", b"Bearer x")]}
    assert world.auth.signed(asgi) is None
    assert Authenticator(world.keys, world.accounts).signed(world.asgi()) is None


def test_another_body_path_or_method_is_refused(world: World) -> None:
    for body, changes in ((b"{}", {}), (BODY, {"method": "PUT"}), (BODY, {"target": "/v1/tickets?status=closed"})):
        with refusal(401) as refused:
            world.proven(body, **changes)
        assert refused.value.headers is not None
        assert "www-authenticate" in refused.value.headers
        assert SECRET not in refused.value.message


def test_the_scope_is_told_only_to_who_proved_himself(world: World) -> None:
    with refusal(401):
        world.proven(b"{}", scope="manage:keys")
    with refusal(403):
        world.proven(scope="manage:keys")
    world.accounts.apply("acc_1", "acc_1", b"damaged")
    with refusal(403):
        world.proven()


def test_what_no_body_can_make_right_is_refused_before_it(world: World) -> None:
    with refusal(401):
        world.claimed(key="ok_live_unknown")
    world.clock.advance(301)
    with refusal(401):
        world.claimed()
    world.stale.append("is old")
    with refusal(503):
        world.claimed()


def test_a_key_without_a_secret_cannot_sign(world: World) -> None:
    world.give(None)
    with refusal(401) as refused:
        world.claimed()
    assert "has no secret" in refused.value.message


def test_a_secret_that_belongs_elsewhere_does_not_open(world: World) -> None:
    for account, name in (("acc_2", key_secret("key_1")), ("acc_1", key_secret("key_2"))):
        world.give(world.ring.seal(SECRET, account=account, name=name))
        with refusal(401):
            world.proven()


def test_the_public_half_of_a_key_that_signs_is_no_bearer(world: World) -> None:
    bearer = [(b"authorization", b"Bearer " + KEY.encode())]
    with refusal(401):
        world.auth.authenticate(bearer, None)
    world.give(None)
    assert world.auth.authenticate(bearer, None).id == "key_1"


def test_the_target_is_what_was_sent() -> None:
    assert target_of({"path": "/a b", "raw_path": b"/a%20b", "query_string": b"q=%C3%BC"}) == b"/a%20b?q=%C3%BC"
    assert target_of({"path": "/a b", "query_string": b""}) == b"/a%20b"

"""How providers say yes and no, and where they want a credential."""

from typing import Any

import orjson
import pytest

from millrace_core.outgoing_credentials import PLACEMENTS, Credential, Placement
from millrace_core.providers import PROVIDERS, ProviderName, judged


@pytest.mark.parametrize(
    ("provider", "status", "said", "is_good", "message"),
    [
        ("slack", 200, {"ok": True, "user": "bot", "team": "Acme"}, True, "connected as bot of Acme"),
        ("slack", 200, {"ok": False, "error": "invalid_auth"}, False, "Slack refused it: invalid_auth"),
        ("slack", 200, ["odd"], False, "not what Slack says"),
        ("slack", 503, None, False, "the answer was 503"),
        ("github", 200, {"login": "octocat"}, True, "connected as octocat"),
        ("github", 200, {"odd": 1}, False, "not what GitHub says"),
        ("github", 401, {"message": "Bad credentials"}, False, "the credential was not accepted"),
        ("stripe", 200, {"object": "balance", "livemode": False}, True, "connected in test mode"),
        ("stripe", 401, {}, False, "the credential was not accepted"),
        ("http", 204, None, True, "the answer was 204"),
        ("http", 302, None, False, "a redirect"),
        ("http", 500, None, False, "only 2xx counts"),
    ],
)
def test_a_provider_says_yes_or_no(provider: ProviderName, status: int, said: Any, is_good: bool, message: str) -> None:
    verdict = judged(PROVIDERS[provider], status, b"<html>" if said is None else orjson.dumps(said))
    assert verdict.is_good == is_good
    assert message in verdict.message


def test_an_api_key_stands_where_its_provider_wants_it_unless_its_owner_said_where() -> None:
    plain = Credential("api_key", PLACEMENTS["api_key"], (), "xoxb-your-token")
    assert PROVIDERS["slack"].placed(plain).placement == PLACEMENTS["bearer"]
    assert PROVIDERS["http"].placed(plain) == plain
    own = Credential("api_key", Placement(name="X-Own"), (), "xoxb-your-token")
    assert PROVIDERS["slack"].placed(own) == own
    basic = Credential("basic", PLACEMENTS["basic"], (), "sk_live_x:")
    assert PROVIDERS["stripe"].placed(basic) == basic

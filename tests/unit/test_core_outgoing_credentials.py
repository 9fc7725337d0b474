"""Where a credential stands in a request, and that nothing of it is left in what comes back."""

import base64
from urllib.parse import quote

import pytest

from millrace_core import egress
from millrace_core.errors import Reject
from millrace_core.outgoing_credentials import (
    PLACEMENTS,
    Credential,
    CredentialType,
    Placement,
    applied,
    check_hosts,
    check_placement,
    check_value,
    masked,
)

TARGET = egress.check_url("https://api.example.com/x?y=1")
SECRET = 'xoxb-y"our/to+ken'


def credential(
    type: CredentialType = "api_key",
    value: str = SECRET,
    placement: Placement | None = None,
    hosts: tuple[str, ...] = (),
) -> Credential:
    return Credential(type, placement or PLACEMENTS[type], hosts, value)


@pytest.mark.parametrize(
    ("type", "value", "name", "written"),
    [
        ("api_key", SECRET, "x-api-key", SECRET),
        ("bearer", SECRET, "authorization", f"Bearer {SECRET}"),
        ("basic", "user:password", "authorization", "Basic dXNlcjpwYXNzd29yZA=="),
    ],
)
def test_each_type_has_its_place(type: CredentialType, value: str, name: str, written: str) -> None:
    target, headers = applied(credential(type, value), TARGET, {"accept": "*/*"})
    assert headers == {"accept": "*/*", name: written}
    assert target == TARGET


def test_an_api_key_may_be_placed() -> None:
    _, headers = applied(credential(placement=Placement(name="X-Token", prefix="t=")), TARGET, {})
    assert headers == {"x-token": f"t={SECRET}"}
    target, headers = applied(credential(placement=Placement(where="query", name="key")), TARGET, {})
    assert (target.path, headers) == (f"/x?y=1&key={quote(SECRET, safe='')}", {})
    bare, _ = applied(
        credential(placement=Placement(where="query", name="key")), egress.check_url("https://a.example/"), {}
    )
    assert bare.path.startswith("/?key=")


def test_a_header_of_the_config_in_its_place_is_refused() -> None:
    with pytest.raises(Reject, match="is the credential's"):
        applied(credential("bearer"), TARGET, {"authorization": "mine"})


def test_it_goes_to_its_hosts_only() -> None:
    applied(credential(hosts=("api.example.com",)), TARGET, {})
    with pytest.raises(Reject, match=r"may not be sent to api\.example\.com"):
        applied(credential(hosts=("other.example",)), TARGET, {})


@pytest.mark.parametrize("type", ["api_key", "basic"])
def test_what_is_repeated_is_masked_in_every_form(type: CredentialType) -> None:
    one = credential(type, f"user:{SECRET}" if type == "basic" else SECRET)
    said = [SECRET, quote(SECRET, safe=""), SECRET.replace('"', '\\"'), SECRET.replace('"', '\\"').replace("/", "\\/")]
    said += [base64.b64encode(one.value.encode()).decode()] if type == "basic" else []
    for text in said:
        assert text.encode() not in masked(one, f"you sent {text}, thanks".encode()), text
    assert masked(one, b"nothing") == b"nothing"


@pytest.mark.parametrize(
    ("type", "value"),
    [("api_key", "short"), ("api_key", "line\nbreak"), ("api_key", " padded-key"), ("basic", "no-colon-here"),
     ("bearer", "ünïcode-key"), ("bearer", "x" * 4_097)],
)  # fmt: skip
def test_a_value_that_cannot_be_kept_is_refused_without_showing_it(type: CredentialType, value: str) -> None:
    with pytest.raises(Reject) as refused:
        check_value(type, value)
    assert value not in str(refused.value)


@pytest.mark.parametrize(
    ("type", "placement"),
    [
        ("bearer", Placement(name="X-Other")),
        ("api_key", Placement(name="Host")),
        ("api_key", Placement(name="Idempotency-Key")),
        ("api_key", Placement(name="a b")),
        ("api_key", Placement(where="query", name="a&b")),
        ("api_key", Placement(where="query", name="a", prefix="\0")),
        ("api_key", Placement(name="X-Key", prefix="ü")),
        ("api_key", Placement(name="X-Key", prefix="x" * 33)),
    ],
)
def test_a_place_that_is_not_its_own_is_refused(type: CredentialType, placement: Placement) -> None:
    with pytest.raises(Reject):
        check_placement(type, placement)


@pytest.mark.parametrize("host", ["Api.example.com", "a.example:8443", "a.example/x", "", "https://a.example"])
def test_a_host_is_written_as_it_is_compared(host: str) -> None:
    with pytest.raises(Reject):
        check_hosts([host])


def test_a_credential_shows_nothing_of_itself() -> None:
    assert SECRET not in repr(credential())
    check_hosts(["api.example.com", "127.0.0.1"])

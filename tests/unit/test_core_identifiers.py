"""What may be an identifier, what may be a pattern, and which hears which."""

import pytest

from millrace_core.errors import Reject
from millrace_core.identifiers import identifier_of, parse_identifier, parse_pattern


@pytest.mark.parametrize(
    ("provider", "name"),
    [("custom", "user-signup"), ("a", "b"), ("A.b_c-9", "x.y:z_1-"), ("p" * 64, "n" * 128), ("0", "0")],
)
def test_what_the_rules_allow_is_an_identifier(provider: str, name: str) -> None:
    assert parse_identifier(identifier_of(provider, name)) == (provider, name)


@pytest.mark.parametrize(
    ("provider", "name", "which"),
    [
        ("", "x", "provider"),
        ("-a", "x", "provider"),
        ("a/b", "x", "provider"),
        ("a:b", "x", "provider"),
        ("p" * 65, "x", "provider"),
        ("a\n", "x", "provider"),
        ("é", "x", "provider"),
        ("a", "", "event name"),
        ("a", ".x", "event name"),
        ("a", "n" * 129, "event name"),
        ("a", "x y", "event name"),
        ("a", "*", "event name"),
    ],
)
def test_a_refusal_names_the_half_that_is_wrong(provider: str, name: str, which: str) -> None:
    with pytest.raises(Reject, match=f"is not an? {which}"):
        identifier_of(provider, name)


@pytest.mark.parametrize("text", ["", "custom/x", "e:custom", "e:/x", "e:a/", "E:a/b", "e:a/b/c"])
def test_what_is_no_identifier_is_refused(text: str) -> None:
    with pytest.raises(Reject):
        parse_identifier(text)


@pytest.mark.parametrize(
    ("pattern", "identifier", "hears"),
    [
        ("e:github/push", "e:github/push", True),
        ("e:github/push", "e:github/Push", False),
        ("e:github/*", "e:github/push", True),
        ("e:github/pu*", "e:github/push", True),
        ("e:github/push*", "e:github/push", True),
        ("e:github/push*", "e:github/pus", False),
        ("e:git*/push", "e:gitlab/push", True),
        ("e:*/push", "e:gitlab/push", True),
        ("e:*/*", "e:gitlab/push", True),
        ("e:*/*", "e:millrace/run.failed", False),
        ("e:mill*/*", "e:millrace/run.failed", False),
        ("e:mill*/*", "e:millstone/x", True),
        ("e:millrace/*", "e:millrace/run.failed", True),
        ("e:millrace/run.*", "e:millrace/run.failed", True),
    ],
)
def test_a_pattern_hears(pattern: str, identifier: str, hears: bool) -> None:
    parsed = parse_pattern(pattern)
    assert str(parsed) == pattern
    assert parsed.matches(*parse_identifier(identifier)) is hears


@pytest.mark.parametrize("text", ["*", "e:*", "e:a*b/c", "e:**/c", "e:a/b*c", "e:/", "e:-*/x", "github/*", "e:a/ *"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(Reject, match="pattern"):
        parse_pattern(text)

"""Forms: which fields there can be, and what fits them."""

from typing import Any

import pytest

from millrace_core import forms, limits
from millrace_core.errors import Reject
from millrace_core.forms import Wrong


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ({"type": "text"}, ["x", "ä b"], [1, True, ["x"], "two\nlines", "nul\0"]),
        ({"type": "text", "min_length": 2, "max_length": 3}, ["ab", "abc"], ["a", "abcd"]),
        ({"type": "text", "pattern": "[A-Z]{2}-[0-9]+"}, ["AB-1"], ["AB-", "xAB-1", "AB-1x"]),
        ({"type": "textarea"}, ["two\nlines"], [{}, 0]),
        (
            {"type": "email"},
            ["a@b.example", "a.b+c@d.e.ex"],
            ["a", "a@b", "a@b..c", "a b@c.example", "@c.ex"],
        ),
        ({"type": "phone"}, ["+49 (30) 123-456", "030123"], ["call me", "+", "12"]),
        ({"type": "url"}, ["https://example.com", "HTTP://x/y?z"], ["example.com", "javascript:x", "https://"]),
        ({"type": "number", "min": 1, "max": 2.5}, [1, 2.5], [0.9, 2.6, "1", True]),
        ({"type": "integer"}, [0, -5, 3.0], [1.5, "1", False]),
        ({"type": "boolean"}, [True, False], ["true", 1]),
        ({"type": "date"}, ["2026-01-31"], ["31.1.2026", "2026-02-30", "20260131", 5]),
        ({"type": "datetime"}, ["2026-01-31T12:00:00Z"], ["soon", 5]),
        ({"type": "select", "options": ["a", "b"]}, ["a"], ["c", ["a"], 1]),
        ({"type": "multiselect", "options": ["a", "b"]}, [["a"], ["b", "a"]], ["a", ["a", "a"], ["c"], [1]]),
    ],
)
def test_what_fits_a_field(field: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    fields = forms.parse_fields([{"name": "x"} | field])
    for value in good:
        assert forms.check(fields, {"x": value}) == [], value
    for value in bad:
        assert [wrong.field for wrong in forms.check(fields, {"x": value})] == ["x"], value


def test_all_that_is_wrong_is_told_at_once() -> None:
    fields = forms.parse_fields(
        [
            {"name": "email", "type": "email", "required": True},
            {"name": "message", "type": "textarea", "required": True},
            {"name": "age", "type": "integer"},
        ]
    )
    assert forms.check(fields, {"email": "x", "message": "", "age": None, "more": 1}) == [
        Wrong("email", "must be an email address"),
        Wrong("message", "is required"),
        Wrong("more", "is not a field of this form"),
    ]
    assert forms.check(fields, {"email": "a@b.example", "message": "Hello!"}) == []


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ({"type": "text"}, "missing required field `name`"),
        ({"name": "x", "type": "wish"}, "Invalid enum value"),
        ({"name": "x", "type": "text", "colour": "red"}, "unknown field `colour`"),
        ({"name": "1x", "type": "text"}, "name '1x'"),
        ({"name": "x", "type": "select"}, "1 to 500"),
        ({"name": "x", "type": "select", "options": ["a", "a"]}, "each once"),
        ({"name": "x", "type": "text", "options": ["a"]}, "not for fields of type text"),
        ({"name": "x", "type": "text", "min": 1}, "not for fields of type text"),
        ({"name": "x", "type": "number", "min": 2, "max": 1}, "above max"),
        ({"name": "x", "type": "number", "max_length": 1}, "not for fields of type number"),
        ({"name": "x", "type": "text", "min_length": 3, "max_length": 2}, "must hold"),
        ({"name": "x", "type": "text", "pattern": "("}, "not an RE2 expression"),
        ({"name": "x", "type": "text", "pattern": "(a)\\1"}, "not an RE2 expression"),
    ],
)
def test_what_cannot_be_a_field_is_told_with_its_place(field: dict[str, Any], problem: str) -> None:
    with pytest.raises(Reject, match="field 0") as refused:
        forms.parse_fields([field])
    assert problem in str(refused.value)


def test_fields_come_out_as_they_went_in() -> None:
    given = [{"name": "email", "type": "email", "required": True}, {"name": "n", "type": "number", "max": 3.0}]
    assert forms.written(forms.parse_fields(given)) == given


def test_a_form_has_bounds() -> None:
    with pytest.raises(Reject, match="at most"):
        forms.parse_fields([{"name": f"f{n}", "type": "text"} for n in range(limits.FORM_FIELDS_MAX + 1)])
    with pytest.raises(Reject, match="there twice"):
        forms.parse_fields([{"name": "x", "type": "text"}] * 2)

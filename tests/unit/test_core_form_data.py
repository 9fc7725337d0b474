"""Form data: what a browser sends, read by each field's type."""

from typing import Any

import pytest

from millrace_core import form_data, forms, limits
from millrace_core.errors import Reject

DAY, MOMENT = "2026-01-31", "2026-01-31T12:00"


@pytest.mark.parametrize(
    ("type", "texts", "read"),
    [
        ("text", ["x"], "x"),
        ("textarea", ["two\r\nlines"], "two\nlines"),
        ("email", ["a@b.example"], "a@b.example"),
        ("number", [" 1.50 "], 1.5),
        ("number", ["-2"], -2),
        ("number", ["1e3"], 1000.0),
        ("number", ["9" * 400], "9" * 400),
        ("number", ["nan"], "nan"),
        ("number", ["٣"], "٣"),
        ("number", ["1_000"], "1_000"),
        ("integer", ["7"], 7),
        ("integer", ["1.5"], 1.5),
        ("integer", ["9" * 5_000], "9" * 5_000),
        ("boolean", ["true"], True),
        ("boolean", ["false"], False),
        ("boolean", ["on"], "on"),
        ("date", [DAY], DAY),
        ("datetime", [MOMENT], f"{MOMENT}Z"),
        ("datetime", [f"{MOMENT}:30+02:00"], f"{MOMENT}:30+02:00"),
        ("datetime", ["soon"], "soon"),
        ("select", ["a"], "a"),
        ("multiselect", ["a"], ["a"]),
        ("multiselect", ["a", "", "b"], ["a", "b"]),
        ("text", ["a", "b"], ["a", "b"]),
        ("number", ["1", "2"], ["1", "2"]),
    ],
)
def test_a_text_is_read_by_the_fields_type(type: str, texts: list[str], read: Any) -> None:
    answer = form_data.answer(_fields(type), {"x": texts})
    assert answer == {"x": read}
    assert answer["x"].__class__ is read.__class__


@pytest.mark.parametrize("type", forms.FIELD_TYPES)
@pytest.mark.parametrize("texts", [[], [""], ["  "], ["", "\r\n"]])
def test_what_is_empty_is_left_out(type: str, texts: list[str]) -> None:
    assert form_data.answer(_fields(type), {"x": texts}) == {}


def test_what_cannot_be_read_is_named_by_the_check() -> None:
    fields = _fields("number")
    wrong = forms.check(fields, form_data.answer(fields, {"x": ["many"]}))
    assert [(one.field, one.problem) for one in wrong] == [("x", "must be a number")]


def test_names_that_are_no_field_are_passed_by() -> None:
    assert form_data.answer(_fields("text"), {"send": ["Send"], "x": ["y"]}) == {"x": "y"}


def test_a_body_is_parsed_in_order_and_repeats_are_kept() -> None:
    given = form_data.parse(b"a=1&b=%C3%A4+b&a=2&c=")
    assert given == {"a": ["1", "2"], "b": ["ä b"], "c": [""]}
    assert form_data.parse(b"") == {}


@pytest.mark.parametrize("body", [b"a=%ff", b"a=\xff", b"&".join([b"a=1"] * (limits.FORM_DATA_MEMBERS_MAX + 1))])
def test_what_is_no_form_data_is_refused(body: bytes) -> None:
    with pytest.raises(Reject):
        form_data.parse(body)


def test_what_fills_in_the_trap_is_no_person_and_no_field_can_be_the_trap() -> None:
    assert form_data.is_trapped({form_data.TRAP: ["https://spam.example"]})
    assert not form_data.is_trapped({form_data.TRAP: [""]})
    assert not form_data.is_trapped({})
    with pytest.raises(Reject):
        forms.parse_fields([{"name": form_data.TRAP, "type": "text"}])


def _fields(type: str) -> tuple[forms.Field, ...]:
    options = {"options": ["a", "b"]} if type in ("select", "multiselect") else {}
    return forms.parse_fields([{"name": "x", "type": type} | options])

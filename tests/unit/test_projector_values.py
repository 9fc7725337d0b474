"""What goes into a column: everything Postgres would refuse is refused or cleaned before it gets there."""

import json

import pytest

from millrace_core.errors import Reject
from millrace_projector import values


@pytest.mark.parametrize(
    ("raw", "copy"),
    [
        (rb'{"a": 1.10, "b": 1e2}', '{"a": 1.10, "b": 1e2}'),
        (rb'{"a":"x\u0000y"}', '{"a":"xy"}'),
        (rb'{"a":"\\u0000"}', r'{"a":"\\u0000"}'),
        (rb'{"a":"\\\u0000"}', r'{"a":"\\"}'),
        (rb'{"a":"\u0000\u0000"}', '{"a":""}'),
        (rb'{"a":"\ud83d\ude00"}', r'{"a":"\ud83d\ude00"}'),
        (rb'{"a":"\ud83d"}', r'{"a":"\ufffd"}'),
        (rb'{"a":"\ude00\ud83d"}', r'{"a":"\ufffd\ufffd"}'),
        (rb'{"a":"1e999"}', '{"a":"1e999"}'),
        (rb"1e308", "1e308"),
    ],
)
def test_the_copy_of_json_keeps_all_but_what_jsonb_refuses(raw: bytes, copy: str) -> None:
    assert values.json_copy(raw) == (copy, None)
    json.loads(copy)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a":"\xff"}', "it is not UTF-8"),
        (b"[1e309]", "a number is out of range"),
        (b"[1E+400000]", "a number is out of range"),
        (b"[1e-99999999999999]", "a number is out of range"),
        (b"[" + b"7" * 400 + b"]", "a number is out of range"),
    ],
)
def test_json_that_has_no_copy_has_a_reason(raw: bytes, reason: str) -> None:
    assert values.json_copy(raw) == (None, reason)


@pytest.mark.parametrize("id", ["", "evt", "evt_", "evt_" + "g" * 32, "evt_" + "A" * 32, "evt-" + "a" * 32, "a" * 32])
def test_what_is_no_id_is_refused(id: str) -> None:
    with pytest.raises(Reject, match="is not an id"):
        values.uuid_hex(id)


def test_an_id_keeps_its_digits_whatever_its_prefix() -> None:
    assert values.uuid_hex("task_" + "0a" * 16) == "0a" * 16
    assert values.uuid_hex_or_none(None) is None


@pytest.mark.parametrize("ms", [10**18, -(10**18), 2**80])
def test_a_time_out_of_range_is_refused(ms: int) -> None:
    with pytest.raises(Reject, match="is not a time"):
        values.moment(ms)


def test_numbers_that_fit_no_column_are_refused() -> None:
    assert values.int4(2**31 - 1) == 2**31 - 1
    assert values.int8(-(2**63)) == -(2**63)
    for check, value in ((values.int4, 2**31), (values.int8, 2**63)):
        with pytest.raises(Reject, match="out of range"):
            check(value)


def test_text_loses_only_what_postgres_cannot_store() -> None:
    assert values.clean("a\x00b") == "ab"
    assert values.clean_or_none("ä€") == "ä€"
    assert values.clean_or_none(None) is None

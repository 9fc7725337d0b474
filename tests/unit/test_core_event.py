"""What may be posted, and what becomes of it."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace_core import ids, record
from millrace_core.errors import Reject
from millrace_core.event import (
    Posted,
    checked_properties,
    iso_of,
    make_event,
    parse_post,
    parse_posts,
    parse_timestamp,
    to_output,
)
from millrace_core.messages import Event, decode
from millrace_core.record import Written, header, payload_bytes

NOW = 1_800_000_000_000  # 2027-01-15T08:00:00Z


def post(**members: object) -> Posted:
    return parse_post(orjson.dumps({"eventType": {"provider": "custom", "name": "x"}} | members), now_ms=NOW)


def with_properties(properties: bytes) -> bytes:
    return b'{"eventType":{"provider":"custom","name":"x"},"properties":' + properties + b"}"


def test_the_seeds_example_is_taken() -> None:
    posted = parse_post(
        b"""{"eventType": {"provider": "custom", "name": "user-signup"},
             "properties": {"userId": "12345", "plan": "pro"}, "more": "is ignored"}""",
        now_ms=NOW,
    )
    assert posted.identifier == "e:custom/user-signup"
    assert bytes(posted.properties) == b'{"userId": "12345", "plan": "pro"}'
    assert (posted.timestamp, posted.unique_key, posted.ordering_key) == (None, None, None)


def test_optional_members_may_be_null_or_left_out() -> None:
    assert bytes(post(properties=None, timestamp=None, uniqueKey=None, orderingKey=None).properties) == b"{}"
    assert bytes(post().properties) == b"{}"


@pytest.mark.parametrize(
    "properties",
    [
        b'{"n":1e2,"m":1.10,"long":123456789012345678901234567890}',
        b'{"a":1,"a":2}',
        b'{"u":"\\u00e9\\u0000\\ud83d\\ude00"}',
        b'{ "spaced" : [ 1 , 2 ] }',
        '{"é":"😀"}'.encode(),
    ],
)
def test_properties_keep_their_bytes(properties: bytes) -> None:
    posted = parse_post(with_properties(b"  " + properties + b" "), now_ms=NOW)
    event = make_event(posted, account="acc_1", now_ms=NOW)
    output = to_output(event)
    written = Written("t", 0, 0, NOW, output.key, output.value, output.headers)
    assert payload_bytes(written) == properties
    assert decode(output.value, Event).id == event.id


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "must be one JSON object, not an array"),
        (b'{"a":1,}', "not valid JSON"),
        (b"\xff", "not valid UTF-8"),
        (b"{}", "`eventType` is missing"),
        (b'{"eventType":"x"}', "`eventType` must be an object, not a string"),
        (b'{"eventType":{"name":"x"}}', "`eventType.provider` is missing"),
        (b'{"eventType":{"provider":1,"name":"x"}}', "`eventType.provider` must be a string, not a number"),
        (b'{"eventType":{"provider":"a b","name":"x"}}', "`eventType`: 'a b' is not a provider"),
        (with_properties(b"[1]"), "`properties` must be an object, not an array"),
        (with_properties(b'"x"'), "`properties` must be an object, not a string"),
        (with_properties(b"true"), "`properties` must be an object, not a boolean"),
        (with_properties(b'{"a":NaN}'), "not valid JSON"),
        (with_properties(b'{"a":1e400}'), "not valid JSON"),
        (with_properties(b'{"a":"\xff"}'), "not valid UTF-8"),
        (with_properties(b'{"a":"\\ud800"}'), "surrogate"),
        (with_properties(b'{"a":' * 128 + b"{}" + b"}" * 128), "more than 128 deep"),
        (with_properties(b"[" * 2000 + b"]" * 2000), "more than 128 deep"),
        (b'{"eventType":{"provider":"a","name":"x"},"uniqueKey":5}', "`uniqueKey` must be a string, not a number"),
        (b'{"eventType":{"provider":"a","name":"x"},"uniqueKey":""}', "`uniqueKey` has 0 characters"),
        (b'{"eventType":{"provider":"a","name":"x"},"timestamp":1}', "`timestamp` must be a string"),
    ],
)
def test_a_refusal_says_what_is_wrong(body: bytes, says: str) -> None:
    with pytest.raises(Reject) as refused:
        parse_post(body, now_ms=NOW)
    assert says in str(refused.value)


GOOD = [
    with_properties(b'{"n":1e2,"a":1,"a":2}'),
    with_properties(b"  null "),
    with_properties(b'{"a":' * 127 + b"{}" + b"}" * 127),
    b'{"eventType":{"provider":"custom","name":"x","name":"y"},"timestamp":"2027-01-15","uniqueKey":"u"}',
    b' {"eventType": {"provider": "custom", "name": "x"}, "orderingKey": "o", "more": [1, {}]}\n',
]


@given(st.lists(st.sampled_from(GOOD), max_size=8))
def test_an_array_parsed_at_once_is_what_its_items_are(items: list[bytes]) -> None:
    posted = parse_posts(b"[" + b",".join(items) + b"]", now_ms=NOW)
    assert posted == [parse_post(item, now_ms=NOW) for item in items]


@pytest.mark.parametrize(
    "bad",
    [
        b"7",
        b"{}",
        b'{"eventType":{"provider":"","name":"x"}}',
        b'{"eventType":{"provider":"custom","name":"x"},"uniqueKey":""}',
        b'{"eventType":{"provider":"custom","name":"x"},"timestamp":"tomorrow"}',
        with_properties(b"[]"),
        with_properties(b'{"a":' * 128 + b"{}" + b"}" * 128),
        with_properties(b'{"a":"\xff"}'),
        with_properties(b'{"a":1e400}'),
        with_properties(b'{"a":"\\ud800"}'),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_array_with_a_bad_item_is_not_parsed_at_once(bad: bytes, place: int) -> None:
    with pytest.raises(Reject):
        parse_post(bad, now_ms=NOW)
    items = [*GOOD[:2]]
    items.insert(place, bad)
    assert parse_posts(b"[" + b",".join(items) + b"]", now_ms=NOW) is None


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"[1", b"null", b"[" * 5_000])
def test_what_is_no_array_is_not_parsed_at_once(body: bytes) -> None:
    assert parse_posts(body, now_ms=NOW) is None


def test_depth_is_counted_from_the_properties() -> None:
    parse_post(with_properties(b'{"a":' * 127 + b"{}" + b"}" * 127), now_ms=NOW)
    many = b'{"a":[' + b",".join([b"[]"] * 500) + b"]}"
    parse_post(with_properties(many), now_ms=NOW)


def test_keys_have_their_length() -> None:
    assert post(uniqueKey="k" * 256, orderingKey="o").unique_key == "k" * 256
    for name in ("uniqueKey", "orderingKey"):
        with pytest.raises(Reject, match="257 characters: use 1 to 256"):
            post(**{name: "k" * 257})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2027-01-15T08:00:00Z", "2027-01-15T08:00:00.000Z"),
        ("2027-01-15T08:00:00", "2027-01-15T08:00:00.000Z"),
        ("2027-01-15T10:00:00+02:00", "2027-01-15T08:00:00.000Z"),
        ("2027-01-15", "2027-01-15T00:00:00.000Z"),
        ("20270115T080000Z", "2027-01-15T08:00:00.000Z"),
        ("2027-01-15 08:00:00.123456789+0000", "2027-01-15T08:00:00.123456Z"),
        ("2027-01-15T08:00:00.123456Z", "2027-01-15T08:00:00.123456Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ("2027-01-16T08:00:00Z", "2027-01-16T08:00:00.000Z"),
    ],
)
def test_a_timestamp_is_kept_in_utc(given: str, kept: str) -> None:
    assert parse_timestamp(given, now_ms=NOW) == kept


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("yesterday", "not ISO 8601"),
        ("", "not ISO 8601"),
        ("2027-13-01", "not ISO 8601"),
        ("0001-01-01T00:00:00+23:00", "not ISO 8601"),
        ("1969-12-31T23:59:59Z", "before 1970"),
        ("2027-01-16T08:00:01Z", "24 hours ahead"),
        ("1" * 5000, "not ISO 8601"),
        ("20260101120000", "not ISO 8601"),
    ],
)
def test_a_timestamp_out_of_range_is_refused(given: str, says: str) -> None:
    with pytest.raises(Reject, match=says) as refused:
        parse_timestamp(given, now_ms=NOW)
    assert len(str(refused.value)) < 300


def test_an_event_with_a_unique_key_has_one_id_for_its_day() -> None:
    posted = post(uniqueKey="k")
    morning = make_event(posted, account="acc_1", now_ms=NOW)
    assert morning.id == make_event(posted, account="acc_1", now_ms=NOW + 3_600_000).id
    assert morning.id != make_event(posted, account="acc_1", now_ms=NOW + ids.DAY_MS).id
    assert morning.id != make_event(posted, account="acc_2", now_ms=NOW).id
    assert ids.time_ms_of(morning.id) == NOW - NOW % ids.DAY_MS
    assert make_event(post(), account="acc_1", now_ms=NOW).id != make_event(post(), account="acc_1", now_ms=NOW).id


def test_its_record_carries_what_readers_need() -> None:
    event = make_event(post(uniqueKey="u", orderingKey="o"), account="acc_1", now_ms=NOW)
    output = to_output(event, surface="ops", traceparent="00-x")
    written = Written("t", 0, 0, NOW, output.key, output.value, output.headers)
    assert output.topic == "events"
    assert output.key == b"e:custom/x"
    assert output.route == b"acc_1\x1fe:custom/x\x1fo"
    assert header(written, record.ACCOUNT) == b"acc_1"
    assert header(written, record.ID) == event.id.encode()
    assert header(written, record.SURFACE) == b"ops"
    assert header(written, record.UNIQUE_KEY) == b"u"
    assert header(written, record.ORDERING_KEY) == b"o"
    assert header(written, record.TRACEPARENT) == b"00-x"


def test_properties_from_elsewhere_are_checked_alike() -> None:
    assert bytes(checked_properties(b' {"a":1} ')) == b'{"a":1}'
    for wrong in (b"[]", b"{", b'{"a":"\\ud800"}', b"[" * 200 + b"]" * 200, b'{"a":' + b"[" * 128 + b"]" * 128 + b"}"):
        with pytest.raises(Reject):
            checked_properties(wrong)


def test_times_are_written_alike() -> None:
    assert iso_of(0) == "1970-01-01T00:00:00.000Z"
    assert iso_of(NOW + 5) == "2027-01-15T08:00:00.005Z"

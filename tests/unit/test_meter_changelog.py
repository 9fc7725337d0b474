"""What of a changelog is a window, and that nothing in it raises."""

import pytest

from millrace_meter.changelog import ReadableJson, is_window

KEY = ["acc\x1fe:a/b", [1_790_000_000.0, 1_790_000_009.9]]


@pytest.mark.parametrize("value", [[1, 2, 3], None])
def test_what_the_meter_writes_is_a_window(value: object) -> None:
    codec = ReadableJson()
    written = codec.dumps(KEY), codec.dumps(value)
    assert is_window(*map(codec.loads, written))


@pytest.mark.parametrize(
    ("key", "value"),
    [(None, [1, 2, 3]), ("k", [1, 2, 3]), (["a", [1]], None), (KEY, {}), (KEY, [1, 2]), (KEY, [1, 2, "3"]), (KEY, 7)],
    ids=repr,
)
def test_anything_else_is_none(key: object, value: object) -> None:
    assert not is_window(key, value)


@pytest.mark.parametrize("garbage", [b"", b"not json", b"[" * 5_000, b'{"id":"\xff"}'], ids=repr)
def test_garbage_is_null(garbage: bytes) -> None:
    assert ReadableJson().loads(garbage) is None

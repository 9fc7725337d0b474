"""Cursors and positions: opaque, bound to their list and account, never believed."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace_web import positions
from millrace_web.errors import ApiError
from millrace_web.paging import Cursors, PageQuery
from millrace_web.positions import Position

CURSORS = Cursors(b"secret")
HERE = {"account": "acc_1", "listing": "events?identifier=e:p/n"}


@given(st.lists(st.text(max_size=20) | st.integers(-(2**53), 2**53), max_size=4))
def test_a_cursor_comes_back_as_it_was(at: list[str | int]) -> None:
    assert CURSORS.decode(CURSORS.encode(at, **HERE), **HERE) == tuple(at)


@pytest.mark.parametrize("other", [{"account": "acc_2"}, {"listing": "events"}, {"listing": "runs?identifier=e:p/n"}])
def test_a_cursor_is_of_one_account_and_list(other: dict[str, str]) -> None:
    cursor = CURSORS.encode(["a"], **HERE)
    with pytest.raises(ApiError, match="cursor"):
        CURSORS.decode(cursor, **(HERE | other))
    with pytest.raises(ApiError, match="cursor"):
        Cursors(b"another").decode(cursor, **HERE)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda b: base64.urlsafe_b64encode(b).decode()))
def test_what_is_no_cursor_is_400(text: str) -> None:
    with pytest.raises(ApiError) as raised:
        CURSORS.decode(text, **HERE)
    assert (raised.value.status, raised.value.code) == (400, "VALIDATION_ERROR")


def test_pages_follow_one_another() -> None:
    rows = [f"row{n}" for n in range(5)]

    def page_after(cursor: str | None) -> tuple[list[str], str | None]:
        query = PageQuery(cursor, 2)
        after = CURSORS.after(query, **HERE)
        left = [row for row in rows if after is None or row > str(after[0])]
        page = CURSORS.page(left[:3], query, **HERE, at=lambda row: (row,))
        assert page.meta == {"next_cursor": page.next_cursor, "has_more": page.next_cursor is not None}
        return list(page.items), page.next_cursor

    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        items, cursor = page_after(cursor)
        seen += items
    assert seen == rows
    assert cursor is None


def test_positions_keep_the_furthest_of_each_partition() -> None:
    text = positions.render([Position("events", 1, 5), Position("events", 0, 7), Position("events", 1, 9)])
    assert text == "events:0:7,events:1:9"
    assert positions.parse(text) == (Position("events", 0, 7), Position("events", 1, 9))


@pytest.mark.parametrize(
    "text",
    ["", "events", "events:0", "events:0:", ":0:1", "events:a:1", "events:0:-1", "events:0:²", "x:0:" + "9" * 30],
)
def test_what_is_no_position_is_400(text: str) -> None:
    with pytest.raises(ApiError, match="x-millrace-position"):
        positions.parse(text)


def test_positions_are_bounded() -> None:
    with pytest.raises(ApiError):
        positions.parse(",".join(["events:0:1"] * 300))

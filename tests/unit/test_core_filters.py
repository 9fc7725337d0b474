"""What a filter means, case by case, and what it refuses when it is saved."""

from typing import Any

import orjson
import pytest

from millrace_core.errors import Reject
from millrace_core.filters import Equality, compile_filter, equalities, parse_filter

DATA = {
    "action": "opened",
    "count": 7,
    "ratio": 2.5,
    "draft": False,
    "nothing": None,
    "labels": ["bug", "urgent"],
    "user": {"login": "Ada", "id": 1},
    "commits": [{"id": "a", "by": "x"}, {"id": "b", "by": "y"}],
    "empty": [],
    "matrix": [[1, 2], [3]],
}


@pytest.mark.parametrize(
    ("pattern", "holds"),
    [
        ({"action": ["opened"]}, True),
        ({"action": ["closed", "opened"]}, True),
        ({"action": ["closed"]}, False),
        ({"missing": ["x"]}, False),
        ({"count": [7]}, True),
        ({"count": [7.0]}, True),
        ({"count": ["7"]}, False),
        ({"draft": [False]}, True),
        ({"draft": [0]}, False),
        ({"user": {"id": [True]}}, False),
        ({"user": {"id": [1]}}, True),
        ({"nothing": [None]}, True),
        ({"missing": [None]}, False),
        ({"labels": ["urgent"]}, True),
        ({"labels": ["other"]}, False),
        ({"matrix": [3]}, True),
        ({"empty": ["x"]}, False),
        ({"user": ["x"]}, False),
        ({"action": {"x": [1]}}, False),
        ({"commits": {"id": ["b"]}}, True),
        ({"commits": {"id": ["b"], "by": ["y"]}}, True),
        ({"commits": {"id": ["b"], "by": ["x"]}}, False),
        ({"action": [{"prefix": "op"}]}, True),
        ({"action": [{"suffix": "ned"}]}, True),
        ({"action": [{"prefix": "ned"}]}, False),
        ({"count": [{"prefix": "7"}]}, False),
        ({"user": {"login": [{"equals-ignore-case": "aDA"}]}}, True),
        ({"action": [{"anything-but": "closed"}]}, True),
        ({"action": [{"anything-but": ["opened", "closed"]}]}, False),
        ({"action": [{"anything-but": {"prefix": "op"}}]}, False),
        ({"missing": [{"anything-but": "x"}]}, False),
        ({"count": [{"numeric": [">", 5]}]}, True),
        ({"count": [{"numeric": [">", 5, "<=", 7]}]}, True),
        ({"count": [{"numeric": ["=", 7.0]}]}, True),
        ({"ratio": [{"numeric": ["<", 2]}]}, False),
        ({"draft": [{"numeric": ["=", 0]}]}, False),
        ({"action": [{"numeric": [">", 0]}]}, False),
        ({"user": {"login": [{"exists": True}]}}, True),
        ({"user": {"mail": [{"exists": False}]}}, True),
        ({"nobody": {"mail": [{"exists": False}]}}, True),
        ({"nothing": [{"exists": True}]}, True),
        ({"empty": [{"exists": False}]}, False),
        ({"action": ["closed", {"prefix": "o"}]}, True),
        ({"action": ["opened"], "count": [8]}, False),
    ],
)
def test_a_filter_holds(pattern: dict[str, Any], holds: bool) -> None:
    assert compile_filter(pattern)(DATA) is holds


@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        ([], "must be an object"),
        ({}, "filter is empty"),
        ({"a": {}}, "filter.a is empty"),
        ({"a": "x"}, 'filter.a must be an array of alternatives, for example ["x"]'),
        ({"a": []}, "filter.a has no alternatives"),
        ({"a": [["x"]]}, "filter.a[0] is an array"),
        ({"a": {"b": [{"prefx": "x"}]}}, "filter.a.b[0]: 'prefx' is no operation"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, "exactly one operation"),
        ({"a": [{"prefix": ""}]}, "filter.a[0].prefix must be a string"),
        ({"a": [{"numeric": [">"]}]}, "filter.a[0].numeric must be an array"),
        ({"a": [{"numeric": ["~", 1]}]}, "is no comparison"),
        ({"a": [{"numeric": [">", True]}]}, "is no number"),
        ({"a": [{"exists": "yes"}]}, "must be true or false"),
        ({"a": [{"anything-but": []}]}, "filter.a[0].anything-but"),
        ({"a": [{"anything-but": {"numeric": 1}}]}, "may hold one of"),
        ({"a": list(range(300))}, "300 alternatives"),
    ],
)
def test_a_wrong_filter_is_refused_with_its_place(pattern: Any, place: str) -> None:
    with pytest.raises(Reject) as refused:
        compile_filter(pattern)
    assert place in str(refused.value)


def test_a_filter_has_bounds() -> None:
    deep: Any = ["x"]
    for _ in range(17):
        deep = {"a": deep}
    with pytest.raises(Reject, match="deeper than 16"):
        compile_filter(deep)
    with pytest.raises(Reject, match="at most 16384"):
        parse_filter(orjson.dumps({"a": ["x" * 17_000]}))
    with pytest.raises(Reject, match="not valid JSON"):
        parse_filter(b"{")
    assert parse_filter(b'{"a":[1]}') == {"a": [1]}


def test_equalities_are_what_an_index_can_use() -> None:
    pattern = {"a": [1, True, None, 1.0], "b": {"c": ["x"], "d": [{"prefix": "y"}]}, "e": ["x", {"exists": True}]}
    assert equalities(pattern) == [
        Equality(("a",), (1, (True,), None)),
        Equality(("b", "c"), ("x",)),
    ]

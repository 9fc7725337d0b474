"""The index against an oracle that looks at every subscription, through any history of changes."""

import re
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core import limits
from millrace_core.crowd import Crowd
from millrace_core.matching import SubscriptionIndex
from millrace_core.messages import Raw, SubscriptionControl, encode

PROVIDERS = ["a", "ab", "abc", "b", "millrace"]
NAMES = ["x", "xy", "xyz", "y"]
ACCOUNTS = ["acc_1", "acc_2"]
# Most stand in one place, so that it becomes a crowd.
provider = st.one_of(
    st.just("a"), st.just("a"), st.sampled_from(PROVIDERS), st.sampled_from(["*", "a*", "ab*", "m*", "millrace*"])
)
name = st.one_of(st.just("x"), st.just("x"), st.sampled_from(NAMES), st.sampled_from(["*", "x*", "xy*"]))
scalars = st.sampled_from([0, 1, 1.0, True, False, None, "s", "t", ""])
leaf = st.one_of(
    st.lists(scalars, min_size=1, max_size=3),
    st.just([{"exists": False}]),
    st.just([{"exists": True}]),
    st.just([{"prefix": "s"}]),
    st.just([{"anything-but": "s"}]),
    st.just([{"numeric": [">=", 1]}]),
    st.just(["s", {"numeric": ["<", 1]}]),
)
members = st.sampled_from(["p", "q", "r"])
patterns: st.SearchStrategy[Any] = st.recursive(
    st.dictionaries(members, leaf, min_size=1, max_size=2),
    lambda inner: st.dictionaries(members, st.one_of(leaf, inner), min_size=1, max_size=2),
    max_leaves=4,
)
data: st.SearchStrategy[Any] = st.dictionaries(
    members,
    st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(members, inner, max_size=3)),
        max_leaves=6,
    ),
    max_size=3,
)
ids = st.integers(0, 30).map(lambda n: f"sub_{n}")
CREATED = [0, 1_000_000]
subscription = st.tuples(
    st.sampled_from(ACCOUNTS), ids, provider, name, st.one_of(st.none(), patterns), st.integers(1, 3),
    st.sampled_from(CREATED), st.booleans(),
)  # fmt: skip
removal = st.tuples(st.sampled_from(ACCOUNTS), ids)
event = st.tuples(
    st.sampled_from(ACCOUNTS), st.sampled_from(PROVIDERS), st.sampled_from(NAMES), data,
    st.sampled_from([0, 1_000_000 - limits.SUBSCRIPTION_REACH_BACK_MS, 2_000_000]),
)  # fmt: skip


class Oracle:
    """Every subscription is looked at, by rules written once more and as plainly as possible."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], tuple[Any, ...]] = {}

    def match(self, account: str, provider: str, name: str, data: Any, at: int) -> list[str]:
        found = []
        for (owner, id), (p, n, pattern, priority, created, _) in self.held.items():
            if owner != account or at < created - 60_000:
                continue
            if provider == "millrace" and p != "millrace":
                continue
            if not (_glob(p, provider) and _glob(n, name)):
                continue
            if pattern is None or _holds(pattern, data):
                found.append((priority, id))
        return [id for _, id in sorted(found)]


def _glob(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None


def _holds(pattern: dict[str, Any], data: Any) -> bool:
    for member, part in pattern.items():
        present = member in data
        value = data.get(member)
        if isinstance(part, dict):
            objects = [value] if isinstance(value, dict) else []
            if isinstance(value, list):
                objects = [element for element in value if isinstance(element, dict)]
            if not any(_holds(part, inner) for inner in objects or [{}]):
                return False
        elif not any(_alternative(one, present, value) for one in part):
            return False
    return True


def _alternative(one: Any, present: bool, value: Any) -> bool:
    if isinstance(one, dict) and "exists" in one:
        return bool(one["exists"]) is present
    return present and any(_element(one, element) for element in _flat(value))


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [inner for element in value for inner in _flat(element)]
    return [] if isinstance(value, dict) else [value]


def _element(one: Any, value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not isinstance(one, dict):
        return isinstance(one, bool) == isinstance(value, bool) and one == value
    ((operation, operand),) = one.items()
    if operation == "prefix":
        return isinstance(value, str) and value.startswith(operand)
    if operation == "anything-but":
        return not (isinstance(value, str) and value == operand)
    return number and (value >= operand[1] if operand[0] == ">=" else value < operand[1])


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(subscription, removal), max_size=80), st.lists(event, min_size=1, max_size=8))
def test_the_index_finds_what_the_oracle_finds(history: list[Any], events: list[Any]) -> None:
    index, oracle = SubscriptionIndex(), Oracle()
    for step in history:
        if len(step) == 2:
            index.apply(step[0], step[1], None)
            oracle.held.pop(step, None)
            continue
        account, id, p, n, pattern, priority, created, enabled = step
        control = SubscriptionControl(
            account=account,
            pattern=f"e:{p}/{n}",
            target_kind="endpoint",
            target_id="we_1",
            created_at=created,
            priority=priority,
            enabled=enabled,
            filter=Raw(b"null" if pattern is None else orjson.dumps(pattern)),
        )
        index.apply(account, id, encode(control))
        oracle.held[account, id] = (p, n, pattern, priority, created, enabled)
        if not enabled:
            del oracle.held[account, id]
    assert len(index) == len(oracle.held)
    for account, p, n, properties, at in events:
        found = index.match(account, f"e:{p}/{n}", orjson.dumps(properties), received_at=at)
        assert [one.id for one in found] == oracle.match(account, p, n, properties, at)
    for account, id in list(oracle.held):
        index.apply(account, id, None)
    assert len(index) == 0
    assert index._accounts == {}, "an empty index holds on to nothing"


@settings(max_examples=100, deadline=None)
@given(st.lists(patterns, min_size=1, max_size=40), data)
def test_a_crowd_names_everyone_who_might_be_meant(asked: list[Any], properties: Any) -> None:
    from millrace_core.crowd import Entry

    crowd = Crowd()
    entries = [Entry(f"sub_{n}", b'{"filter":%b}' % orjson.dumps(pattern)) for n, pattern in enumerate(asked)]
    for entry in entries:
        crowd.join(entry)
    named = crowd.candidates(properties)
    assert len(named) == len({entry.id for entry in named})
    for entry, pattern in zip(entries, asked, strict=True):
        if _holds(pattern, properties):
            assert entry in named
    for entry in entries:
        crowd.leave(entry)
    assert len(crowd) == 0
    assert crowd.candidates(properties) == []

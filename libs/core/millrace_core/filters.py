"""Filters over an event's properties: JSON patterns in the style of EventBridge, compiled once to closures.

A pattern is nested like the data. Each leaf is an array of alternatives, and one of them must hold:

    {"action": ["opened", {"prefix": "re"}], "pull_request": {"merged": [true], "additions": [{"numeric": [">", 5]}]}}

Alternatives: a string, number, boolean or null (equal to it; numbers by value, so 1 is 1.0, and true is not 1);
`{"prefix": s}`, `{"suffix": s}`, `{"equals-ignore-case": s}`; `{"anything-but": v}`, v a value, an array of values, or
`{"prefix"|"suffix"|"equals-ignore-case": s}`; `{"numeric": [op, n]}` or `[op, n, op, n]` with `< <= = >= >`;
`{"exists": true|false}`. All members of a pattern must hold. An array in the data holds when any one element does, and
one element must satisfy the whole of a nested pattern. What is missing satisfies `exists: false` and nothing else.
Not here: which filters are looked at (`matching`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import orjson

from millrace_core import limits
from millrace_core.errors import Reject

Test = Callable[[Any], bool]
"""Whether a value of the data (or MISSING) satisfies a part of a pattern."""

Scalar = str | int | float | tuple[bool] | None
"""A value that equality is decided on: booleans stand in a tuple, since Python holds True for 1."""

MISSING: Final = object()
ALTERNATIVES_MAX: Final = 256


class Equality(msgspec.Struct, frozen=True, gc=False):
    """A leaf that asks for one of `values` and nothing else: what an index can be built on."""

    path: tuple[str, ...]
    values: tuple[Scalar, ...]


def parse_filter(value: bytes) -> Mapping[str, Any]:
    """The pattern, fully validated: called when a subscription is saved. Raises Reject naming the place."""
    if len(value) > limits.FILTER_BYTES_MAX:
        raise Reject(f"the filter has {len(value)} bytes: at most {limits.FILTER_BYTES_MAX} are allowed")
    try:
        pattern = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Reject(f"the filter is not valid JSON: {error}") from None
    compile_filter(pattern)
    return pattern  # type: ignore[no-any-return]  # compile_filter refuses everything but an object


def compile_filter(pattern: Any) -> Test:
    """The pattern as a function of the properties. Raises Reject naming the place of what is wrong."""
    if not isinstance(pattern, dict):
        raise Reject('the filter must be an object, nested like the data, for example {"action": ["opened"]}')
    return _all_of(pattern, ())


def equalities(pattern: Mapping[str, Any]) -> list[Equality]:
    """The leaves of a valid pattern that only compare for equality."""
    found: list[Equality] = []
    _collect(pattern, (), found)
    return found


def scalar(value: Any) -> Scalar:
    """The form of a scalar in which equal values, and only they, are equal and hash alike."""
    return (value,) if value is True or value is False else value


# ── compiling ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _all_of(pattern: dict[str, Any], path: tuple[str, ...]) -> Test:
    if len(path) >= limits.FILTER_DEPTH_MAX:
        raise Reject(f"{_at(path)} lies deeper than {limits.FILTER_DEPTH_MAX} levels")
    if not pattern:
        raise Reject(f"{_at(path)} is empty: name at least one member, or leave the filter out")
    members: list[tuple[str, Test]] = []
    for name, part in pattern.items():
        if isinstance(part, dict):
            members.append((name, _nested(_all_of(part, (*path, name)))))
        elif isinstance(part, list):
            members.append((name, _any_of(part, (*path, name))))
        else:
            raise Reject(f"{_at((*path, name))} must be an array of alternatives, for example [{_json(part)}]")
    if len(members) == 1:
        ((only, test),) = members

        def one(data: Any) -> bool:
            return test(data.get(only, MISSING))

        return one

    def every(data: Any) -> bool:
        return all(test(data.get(name, MISSING)) for name, test in members)

    return every


def _nested(inner: Test) -> Test:
    def test(value: Any) -> bool:
        if type(value) is dict:
            return inner(value)
        if type(value) is list:
            objects = [element for element in value if type(element) is dict]
            if objects:
                return any(inner(element) for element in objects)
        return inner({})  # nothing lies below: every leaf is missing

    return test


def _any_of(alternatives: list[Any], path: tuple[str, ...]) -> Test:
    if not alternatives:
        raise Reject(f"{_at(path)} has no alternatives: an empty array can never hold")
    if len(alternatives) > ALTERNATIVES_MAX:
        raise Reject(f"{_at(path)} has {len(alternatives)} alternatives: at most {ALTERNATIVES_MAX} are allowed")
    literals = frozenset(scalar(value) for value in alternatives if not isinstance(value, (dict, list)))
    tests: list[Test] = [_of_elements(_equal(literals))] if literals else []
    for index, value in enumerate(alternatives):
        if isinstance(value, list):
            raise Reject(
                f"{_at(path)}[{index}] is an array: alternatives are scalars or objects like {{'prefix': 're'}}"
            )
        if isinstance(value, dict):
            tests.append(_operation(value, f"{_at(path)}[{index}]"))
    if len(tests) == 1:
        return tests[0]
    return lambda value: any(test(value) for test in tests)


def _operation(operation: dict[str, Any], place: str) -> Test:
    if len(operation) != 1:
        raise Reject(f"{place} must name exactly one operation of: {', '.join(sorted(_OPERATIONS))}")
    ((name, operand),) = operation.items()
    build = _OPERATIONS.get(name)
    if build is None:
        raise Reject(f"{place}: {name!r} is no operation: use one of {', '.join(sorted(_OPERATIONS))}")
    return build(operand, f"{place}.{name}")


def _of_elements(test: Test) -> Test:
    """Any element of an array, or the value itself; what is missing or an object never holds."""

    def of_elements(value: Any) -> bool:
        kind = type(value)
        if kind is list:
            return any(of_elements(element) for element in value)
        return kind is not dict and value is not MISSING and test(value)

    return of_elements


def _equal(values: frozenset[Scalar]) -> Test:
    return lambda value: (value if value is not True and value is not False else (value,)) in values


def _text(operand: Any, place: str) -> str:
    if not isinstance(operand, str) or not operand:
        raise Reject(f"{place} must be a string that is not empty")
    return operand


def _prefix(operand: Any, place: str) -> Test:
    text = _text(operand, place)
    return _of_elements(lambda value: type(value) is str and value.startswith(text))


def _suffix(operand: Any, place: str) -> Test:
    text = _text(operand, place)
    return _of_elements(lambda value: type(value) is str and value.endswith(text))


def _ignoring_case(operand: Any, place: str) -> Test:
    text = _text(operand, place).casefold()
    return _of_elements(lambda value: type(value) is str and value.casefold() == text)


def _anything_but(operand: Any, place: str) -> Test:
    if isinstance(operand, dict):
        if len(operand) != 1 or next(iter(operand)) not in _TEXT_OPERATIONS:
            raise Reject(f"{place} may hold one of: {', '.join(sorted(_TEXT_OPERATIONS))}")
        ((name, inner),) = operand.items()
        but = _TEXT_OPERATIONS[name](inner, f"{place}.{name}")
        return _of_elements(lambda value: not but(value))
    values = operand if isinstance(operand, list) else [operand]
    if not values or len(values) > ALTERNATIVES_MAX or any(isinstance(value, (dict, list)) for value in values):
        raise Reject(f"{place} must be a value, an array of 1 to {ALTERNATIVES_MAX} values, or one text operation")
    refused = _equal(frozenset(scalar(value) for value in values))
    return _of_elements(lambda value: not refused(value))


_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "=": lambda a, b: a == b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
}


def _numeric(operand: Any, place: str) -> Test:
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        raise Reject(f'{place} must be an array like [">", 5] or [">=", 0, "<", 10]')
    bounds: list[tuple[Callable[[float, float], bool], float]] = []
    for sign, number in zip(operand[::2], operand[1::2], strict=True):
        if not isinstance(sign, str) or sign not in _COMPARE:
            raise Reject(f"{place}: {_json(sign)} is no comparison: use one of {' '.join(_COMPARE)}")
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise Reject(f"{place}: {_json(number)} is no number")
        bounds.append((_COMPARE[sign], number))
    return _of_elements(
        lambda value: (type(value) is int or type(value) is float) and all(holds(value, n) for holds, n in bounds)
    )


def _exists(operand: Any, place: str) -> Test:
    if not isinstance(operand, bool):
        raise Reject(f"{place} must be true or false")
    return (lambda value: value is not MISSING) if operand else (lambda value: value is MISSING)


_TEXT_OPERATIONS: Final[dict[str, Callable[[Any, str], Test]]] = {
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _ignoring_case,
}
_OPERATIONS: Final[dict[str, Callable[[Any, str], Test]]] = {
    **_TEXT_OPERATIONS,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "exists": _exists,
}


def _collect(pattern: Mapping[str, Any], path: tuple[str, ...], found: list[Equality]) -> None:
    for name, part in pattern.items():
        if isinstance(part, dict):
            _collect(part, (*path, name), found)
        elif not any(isinstance(value, (dict, list)) for value in part):
            found.append(Equality((*path, name), tuple({scalar(value): None for value in part})))


def _at(path: tuple[str, ...]) -> str:
    return "filter" + "".join(f".{name}" for name in path) if len(path) < 20 else "filter…"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()[:100]

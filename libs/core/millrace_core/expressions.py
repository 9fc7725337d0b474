"""The one expression language: CEL, in `${…}` inside plans, and as `where` of a subscription.

A text that is exactly one `${expression}` becomes its value; inside longer text it is written in (a string as it is,
anything else as JSON); `$${` stands for `${`. Expressions see `input` (the run's input: the event's properties),
`event` {id, identifier, received_at, timestamp}, `steps` {node: output}, `previous` (the output before) and the
`variables` of a workflow. They are
compiled when a plan or subscription is saved, and have a bounded cost (ADR 0002 says which bounds, and how far they
go).

Numbers: JSON numbers without point or exponent are int (64 bits), the others double. Comparisons mix them, arithmetic
does not: `input.count + 1.5` is an error when count is 3; write `double(input.count) + 1.5`. Whole numbers beyond
64 bits are doubles. A bare path (`input.order.total`) is taken as it is: members keep their order. Maps made by an
expression do not.

Errors in CEL are values, and true ones at that: only this module touches results, and turns them into Reject.
"""

import math
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import orjson
from cel_expr_python import cel
from cel_expr_python.ext import ext_encoders, ext_math, ext_optional, ext_strings

from millrace_core import limits
from millrace_core.errors import Reject
from millrace_core.messages import Event

VARIABLES: Final = ("input", "event", "steps", "previous", "variables")

_env = cel.NewEnv(
    variables=dict.fromkeys(VARIABLES, cel.Type.DYN),
    extensions=[ext_strings.ExtStrings(), ext_math.ExtMath(), ext_optional.ExtOptional(), ext_encoders.ExtEncoders()],
)
_BARE_PATH = re.compile(rf"(?:{'|'.join(VARIABLES)})(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
# CEL builds the list of `map` and `filter` anew for each element: 1,000 elements take 20 ms, 10,000 five seconds.
_WALK = re.compile(r"\.\s*(?:map|filter)\s*\(")


class Scope:
    """What expressions see of one event or step. Cheap to make; shared by all expressions about the same thing."""

    __slots__ = ("_activation", "_longest", "variables")

    def __init__(self, variables: Mapping[str, Any]) -> None:
        """Names that are missing are null."""
        self.variables = {name: variables.get(name) for name in VARIABLES}
        self._activation: Any = None
        self._longest: int | None = None

    @property
    def activation(self) -> Any:
        if self._activation is None:
            self._activation = _env.Activation(self.variables)
        return self._activation

    @property
    def longest_list(self) -> int:
        if self._longest is None:
            self._longest = _longest(self.variables)
        return self._longest


class Expression:
    """One compiled expression. Safe to use from several threads."""

    __slots__ = ("_path", "_program", "_walks", "text")

    def __init__(self, text: str) -> None:
        """Raises Reject, showing where it is wrong, when it cannot be compiled."""
        self.text = text.strip()
        if len(self.text) > limits.EXPRESSION_CHARS_MAX:
            raise Reject(f"the expression has {len(self.text)} characters: at most {limits.EXPRESSION_CHARS_MAX}")
        if not self.text:
            raise Reject("the expression is empty: name what to put here, for example ${input.id}")
        _check_nesting(self.text)
        try:
            self._program = _env.compile(self.text)
        except (RuntimeError, ValueError) as error:
            raise Reject(f"the expression `{_cut(self.text)}` is wrong: {_first_line(error)}") from None
        self._path = self.text.split(".") if _BARE_PATH.fullmatch(self.text) else None
        self._walks = _WALK.search(self.text) is not None

    def may_be_boolean(self) -> bool:
        """Whether the compiler knows no reason why the result would not be true or false."""
        return self._program.return_type() in (cel.Type.BOOL, cel.Type.DYN)

    def value(self, scope: Scope) -> Any:
        """The result as JSON's types. Raises Reject with what went wrong."""
        if self._path is not None:
            return self._taken(scope.variables)
        if self._walks and scope.longest_list > limits.EXPRESSION_WALK_ITEMS_MAX:
            raise self._failed(
                f"its data holds a list of {scope.longest_list} elements, and map() and filter() may walk at most "
                f"{limits.EXPRESSION_WALK_ITEMS_MAX}"
            )
        try:
            result = self._program.eval(scope.activation)
            if result.type() == cel.Type.ERROR:
                raise self._failed(str(result.value()))
            return _as_json(result.plain_value())
        except Reject:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            raise self._failed(_first_line(error)) from None

    def _taken(self, value: Any) -> Any:
        for name in self._path or ():
            if not isinstance(value, Mapping) or name not in value:
                raise self._failed(
                    f"there is no `{name}`: write has(…), or .?{name}.orValue(…), where it may be missing"
                )
            value = value[name]
        return value

    def _failed(self, reason: str) -> Reject:
        if "overload" in reason and "int64" in reason and "double" in reason:
            reason += "; whole and decimal numbers do not mix in arithmetic: write double(…) around the whole one"
        elif "conversion" in reason or "convert" in reason:
            reason = "its result has no form in JSON: end an optional with .orValue(…)"
        return Reject(f"the expression `{_cut(self.text)}` failed: {reason}")


@lru_cache(maxsize=4096)
def compiled(text: str) -> Expression:
    """The expression, compiled once (75 µs) and remembered. Raises Reject."""
    return Expression(text)


# ── templates ───────────────────────────────────────────────────────────────────────────────────────────────────────
def check_template(template: Any, *, place: str = "") -> None:
    """Compile every expression in a JSON value; called when a plan is saved. Raises Reject naming the place."""
    if isinstance(template, str):
        try:
            parse_text(template)
        except Reject as error:
            raise Reject(f"{place}: {error}" if place else str(error)) from None
    elif isinstance(template, dict):
        for name, value in template.items():
            check_template(value, place=f"{place}.{name}" if place else str(name))
    elif isinstance(template, list):
        for index, value in enumerate(template):
            check_template(value, place=f"{place}[{index}]")


def render(template: Any, scope: Scope) -> Any:
    """The JSON value with every `${…}` in its texts replaced. Raises Reject when an expression fails."""
    if isinstance(template, str):
        return _render_text(parse_text(template), scope) if "${" in template else template
    if isinstance(template, dict):
        return {name: render(value, scope) for name, value in template.items()}
    if isinstance(template, list):
        return [render(value, scope) for value in template]
    return template


@lru_cache(maxsize=4096)
def parse_text(text: str) -> tuple[str | Expression, ...]:
    """The literal and the computed parts of a text, in order. Raises Reject when an expression is wrong."""
    parts: list[str | Expression] = []
    literal, at = "", 0
    while (found := text.find("${", at)) >= 0:
        if found > at and text[found - 1] == "$":
            literal += text[at : found - 1] + "${"
            at = found + 2
            continue
        literal += text[at:found]
        if literal:
            parts.append(literal)
            literal = ""
        end = _end_of(text, found + 2)
        parts.append(compiled(text[found + 2 : end]))
        at = end + 1
    literal += text[at:]
    if literal or not parts:
        parts.append(literal)
    return tuple(parts)


def _render_text(parts: tuple[str | Expression, ...], scope: Scope) -> Any:
    if len(parts) == 1 and isinstance(parts[0], Expression):
        return parts[0].value(scope)
    return "".join(part if isinstance(part, str) else _written(part.value(scope)) for part in parts)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _end_of(text: str, at: int) -> int:
    """Where the brace that closes an expression stands: not one inside a string or a map."""
    depth = 0
    while at < len(text):
        sign = text[at]
        if sign in "\"'":
            at = _after_string(text, at)
            continue
        if sign == "{":
            depth += 1
        elif sign == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    raise Reject("an expression begins with ${ and does not end: close it with }, or write $${ for the text itself")


def _after_string(text: str, at: int) -> int:
    quote = text[at] * 3 if text.startswith(text[at] * 3, at) else text[at]
    is_raw = at > 0 and text[at - 1] in "rR"
    at += len(quote)
    while at < len(text) and not text.startswith(quote, at):
        at += 2 if text[at] == "\\" and not is_raw else 1
    return at + len(quote)


# ── conditions of subscriptions ─────────────────────────────────────────────────────────────────────────────────────
def check_condition(text: str) -> None:
    """Raises Reject unless the text can serve as a `where`: called when a subscription is saved."""
    expression = Expression(text)
    if not expression.may_be_boolean():
        raise Reject(f"`where` must come to true or false: `{_cut(text)}` never does")


class WhereConditions:
    """The language of `where`, for the matcher's index. An expression that fails, or comes to anything but true, does
    not match: a filter over data that any producer may send must not stop on it."""

    def compile(self, expression: str) -> Callable[[Scope], bool]:
        program = compiled(expression)

        def holds(scope: Scope) -> bool:
            try:
                return program.value(scope) is True
            except Reject:
                return False

        return holds

    def scope(self, properties: Any, event: Event | None) -> Scope:
        return Scope({"input": properties, "event": None if event is None else event_variable(event)})


def event_variable(event: Event) -> dict[str, Any]:
    """What expressions see as `event`."""
    return {
        "id": event.id,
        "identifier": event.identifier,
        "received_at": event.received_at,
        "timestamp": event.timestamp,
    }


# ── from CEL's values to JSON's, and bounds ─────────────────────────────────────────────────────────────────────────
def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("it came to a number that JSON cannot write")
        return value
    if isinstance(value, list):
        return [_as_json(element) for element in value]
    if isinstance(value, dict):
        return {_name(name): _as_json(member) for name, member in value.items()}
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray)):
        return b64encode(value).decode()
    raise ValueError("its result has no form in JSON")


def _name(name: Any) -> str:
    return name if isinstance(name, str) else orjson.dumps(name).decode()


def _check_nesting(text: str) -> None:
    """The engine compiles what it then refuses to evaluate; brackets are counted so that this is said when saving."""
    depth = deepest = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    if deepest > limits.EXPRESSION_NESTING_MAX:
        raise Reject(f"the expression nests {deepest} brackets: at most {limits.EXPRESSION_NESTING_MAX} are allowed")


def _longest(value: Any) -> int:
    longest, level = 0, [value]
    while level:
        below: list[Any] = []
        for outer in level:
            if isinstance(outer, list):
                longest = max(longest, len(outer))
                below += [inner for inner in outer if isinstance(inner, (dict, list))]
            elif isinstance(outer, Mapping):
                below += [inner for inner in outer.values() if isinstance(inner, (dict, list))]
        level = below
    return longest


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text.removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ").replace("<input>:", "at line:column ")[:300]


def _cut(text: str) -> str:
    return text if len(text) <= 120 else text[:120] + "…"

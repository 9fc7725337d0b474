"""Forms, which the intake surface calls intake bots: typed fields, and whether an answer fits them.

A submission is one JSON object with a member for each field that was filled in; null and an empty text count as left
out. `check` names every field that does not fit, so that whoever fills in a form is told all at once. Pure.
Not here: how forms and submissions are kept, and the event that a submission becomes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import msgspec

from millrace_core import expressions, limits
from millrace_core.errors import Reject

FieldType = Literal[
    "text",
    "textarea",
    "email",
    "phone",
    "url",
    "number",
    "integer",
    "boolean",
    "date",
    "datetime",
    "select",
    "multiselect",
]
FIELD_TYPES: Final[tuple[str, ...]] = get_args(FieldType)
_TEXTS: Final = frozenset({"text", "textarea", "email", "phone", "url"})
_NUMBERS: Final = frozenset({"number", "integer"})
_CHOICES: Final = frozenset({"select", "multiselect"})

_is_name = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}").fullmatch
is_email = re.compile(r"[^\s@\x00-\x1f]{1,64}@[^\s@.\x00-\x1f]+(?:\.[^\s@.\x00-\x1f]+)+").fullmatch
"""Whether a text has the form of an email address; whether somebody reads it nobody asks."""
_is_phone = re.compile(r"\+?[0-9][0-9 ().\-/]{2,31}").fullmatch
_is_url = re.compile(r"https?://[^\s/?#\x00-\x1f]+[^\s\x00-\x1f]*", re.IGNORECASE).fullmatch


class Field(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One thing that is asked for. Lengths count characters; the whole text fits `pattern`, an RE2 expression."""

    name: str
    type: FieldType
    label: str | None = None
    description: str | None = None
    required: bool = False
    options: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Wrong:
    """A field that does not fit, and why."""

    field: str
    problem: str


def parse_fields(given: Sequence[Mapping[str, Any]]) -> tuple[Field, ...]:
    """The fields of a form. Raises Reject naming the first that cannot be one, and why."""
    if len(given) > limits.FORM_FIELDS_MAX:
        raise Reject(f"a form has at most {limits.FORM_FIELDS_MAX} fields, not {len(given)}")
    fields: list[Field] = []
    for at, one in enumerate(given):
        try:
            field = msgspec.convert(one, Field)
            _check_field(field)
        except (msgspec.ValidationError, Reject) as error:
            raise Reject(f"field {at}: {error}") from None
        if any(field.name == other.name for other in fields):
            raise Reject(f"field {at}: the name {field.name!r} is there twice")
        fields.append(field)
    return tuple(fields)


def written(fields: Sequence[Field]) -> list[dict[str, Any]]:
    """The fields as JSON has them, what was left out left out."""
    built: list[dict[str, Any]] = msgspec.to_builtins(list(fields))
    return built


def check(fields: Sequence[Field], data: Mapping[str, Any]) -> list[Wrong]:
    """What does not fit, in the order of the fields; then members that are no field. Empty = all fits."""
    wrong = []
    for field in fields:
        value = data.get(field.name)
        if value is None or value == "" or value == []:
            if field.required:
                wrong.append(Wrong(field.name, "is required"))
            continue
        problem = _PROBLEMS[field.type](field, value)
        if problem is not None:
            wrong.append(Wrong(field.name, problem))
    known = {field.name for field in fields}
    wrong += [Wrong(name[:64], "is not a field of this form") for name in data if name not in known]
    return wrong[: limits.FORM_PROBLEMS_SHOWN_MAX]


# ── one field ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _check_field(field: Field) -> None:
    if not _is_name(field.name):
        raise Reject(f"name {field.name[:80]!r}: a letter or '_', then up to 63 letters, digits, '_', '.' or '-'")
    for name, text in (("label", field.label), ("description", field.description)):
        if text is not None and len(text) > limits.FORM_LABEL_CHARS_MAX:
            raise Reject(f"{name}: at most {limits.FORM_LABEL_CHARS_MAX} characters")
    _check_choices(field)
    _check_bounds(field)
    if field.pattern is not None:
        if field.type not in _TEXTS:
            raise Reject(f"pattern: not for fields of type {field.type}")
        _matches(field.pattern, "")


def _check_choices(field: Field) -> None:
    if field.type in _CHOICES:
        if not 1 <= len(field.options) <= limits.FORM_OPTIONS_MAX:
            raise Reject(f"options: a {field.type} field has 1 to {limits.FORM_OPTIONS_MAX} of them")
        if len(set(field.options)) != len(field.options):
            raise Reject("options: each once")
        if not all(0 < len(option) <= limits.FORM_LABEL_CHARS_MAX for option in field.options):
            raise Reject(f"options: each has 1 to {limits.FORM_LABEL_CHARS_MAX} characters")
    elif field.options:
        raise Reject(f"options: not for fields of type {field.type}")


def _check_bounds(field: Field) -> None:
    if field.type not in _NUMBERS and (field.min is not None or field.max is not None):
        raise Reject(f"min, max: not for fields of type {field.type}")
    if field.type not in _TEXTS and (field.min_length is not None or field.max_length is not None):
        raise Reject(f"min_length, max_length: not for fields of type {field.type}")
    if field.min is not None and field.max is not None and field.min > field.max:
        raise Reject("min must not be above max")
    shortest, longest = field.min_length or 0, field.max_length
    if shortest < 0 or (longest is not None and not max(1, shortest) <= longest <= limits.FORM_TEXT_CHARS_MAX):
        raise Reject(f"0 <= min_length <= max_length <= {limits.FORM_TEXT_CHARS_MAX} must hold, max_length at least 1")


def _text(field: Field, value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a text"
    if "\0" in value:
        return "must not hold the character U+0000"
    shortest, longest = field.min_length or 0, field.max_length or limits.FORM_TEXT_CHARS_MAX
    if not shortest <= len(value) <= longest:
        return f"must have {shortest} to {longest} characters"
    if field.type in ("text", "email", "phone", "url") and "\n" in value:
        return "must be one line"
    if field.type in _FORMS:
        fits, problem = _FORMS[field.type]
        if not fits(value):
            return problem
    if field.pattern is not None and not _matches(field.pattern, value):
        return "does not have the form that is asked for"
    return None


_FORMS: Mapping[str, tuple[Callable[[str], Any], str]] = MappingProxyType(
    {
        "email": (is_email, "must be an email address"),
        "phone": (_is_phone, "must be a telephone number"),
        "url": (_is_url, "must be an address that begins with http:// or https://"),
    }
)


def _number(field: Field, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "must be a number"
    if field.type == "integer" and value != int(value):
        return "must be a whole number"
    if field.min is not None and value < field.min:
        return f"must be at least {field.min:g}"
    if field.max is not None and value > field.max:
        return f"must be at most {field.max:g}"
    return None


def _boolean(_: Field, value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _day(_: Field, value: Any) -> str | None:
    try:
        date.fromisoformat(value if len(value) == len("2026-01-31") else "")
    except (TypeError, ValueError):
        return "must be a day, written 2026-01-31"
    return None


def _moment(_: Field, value: Any) -> str | None:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return "must be a time, written 2026-01-31T12:00:00Z"
    return None


def _choice(field: Field, value: Any) -> str | None:
    return None if value in field.options else f"must be one of {_listed(field.options)}"


def _choices(field: Field, value: Any) -> str | None:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value) or len(set(value)) != len(value):
        return "must be a list of texts, each once"
    return None if set(value) <= set(field.options) else f"must hold only {_listed(field.options)}"


def _listed(options: Sequence[str]) -> str:
    shown = ", ".join(options[:10])
    return f"{shown}, …" if len(options) > 10 else shown


_PROBLEMS: Mapping[str, Callable[[Field, Any], str | None]] = MappingProxyType(
    {
        **dict.fromkeys(_TEXTS, _text),
        **dict.fromkeys(_NUMBERS, _number),
        "boolean": _boolean,
        "date": _day,
        "datetime": _moment,
        "select": _choice,
        "multiselect": _choices,
    }
)


def _matches(pattern: str, text: str) -> bool:
    """Whether the whole text fits. RE2, which takes a time linear in the text, behind the expression language. Raises
    Reject when it is no pattern."""
    if len(pattern) > limits.FORM_PATTERN_CHARS_MAX:
        raise Reject(f"pattern: at most {limits.FORM_PATTERN_CHARS_MAX} characters")
    scope = expressions.Scope({"input": {"text": text, "pattern": f"^(?:{pattern})$"}})
    try:
        return bool(expressions.compiled("input.text.matches(input.pattern)").value(scope))
    except Reject:
        raise Reject(f"pattern {pattern[:80]!r} is not an RE2 expression") from None

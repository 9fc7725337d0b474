"""What a browser sends of a form that was filled in, as the answer that `forms.check` judges.

A browser sends texts alone. Numbers, truth values and lists are read out of them by each field's type; what cannot be
read stays the text that it is, so that the check names it. What was left empty is left out. A time without a zone, as
browsers send it, is one in UTC. Pure. Not here: which answers fit (`millrace_core.forms`), HTTP.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl

from millrace_core import limits
from millrace_core.errors import Reject
from millrace_core.forms import Field

Given = Mapping[str, Sequence[str]]
"""The texts given for each name, in their order."""

# No field can have this name. People do not see it; who fills it in is no person.
TRAP: Final = "contact:website"
NONCE: Final = "contact:page"
YES: Final = "true"
NO: Final = "false"

_is_nonce = re.compile(r"[A-Za-z0-9_-]{16,64}").fullmatch
_is_small_integer = re.compile(r"[+-]?[0-9]{1,18}").fullmatch
_is_number = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?").fullmatch
_has_no_zone = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?").fullmatch


def parse(body: bytes) -> Given:
    """The members of an `application/x-www-form-urlencoded` body. Raises Reject when it is none."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=limits.FORM_DATA_MEMBERS_MAX,
        )
    except UnicodeError:
        raise Reject("the form's data is not UTF-8 text, urlencoded") from None
    except ValueError:
        raise Reject(f"the form's data has more than {limits.FORM_DATA_MEMBERS_MAX} members") from None
    given: dict[str, list[str]] = {}
    for name, text in pairs:
        given.setdefault(name, []).append(text)
    return given


def answer(fields: Iterable[Field], given: Given) -> dict[str, Any]:
    """The answer with a member for each field that was filled in. Names that are no field are passed by: a browser
    sends buttons and the like too."""
    read = ((field, _texts(given.get(field.name, ()))) for field in fields)
    return {field.name: _READ[field.type](texts) for field, texts in read if texts}


def is_trapped(given: Given) -> bool:
    """Whether what only a program sees was filled in."""
    return any(given.get(TRAP, ()))


def nonce_of(given: Given) -> str | None:
    """Which showing of the page this was sent from; None when it does not say."""
    said = given.get(NONCE, ())
    return said[0] if len(said) == 1 and _is_nonce(said[0]) else None


def _texts(given: Sequence[str]) -> list[str]:
    """Lines end as everywhere else, not as HTTP has them; nothing empty."""
    return [text.replace("\r\n", "\n") for text in given if text.strip()]


def _text(texts: list[str]) -> Any:
    """What was given twice for a field that takes one stays a list, which the check refuses."""
    return texts[0] if len(texts) == 1 else texts


def _number(texts: list[str]) -> Any:
    if len(texts) != 1:
        return texts
    text = texts[0].strip()
    if _is_small_integer(text):
        return int(text)
    return float(text) if _is_number(text) and isfinite(float(text)) else text


def _boolean(texts: list[str]) -> Any:
    return {YES: True, NO: False}.get(texts[0], texts[0]) if len(texts) == 1 else texts


def _moment(texts: list[str]) -> Any:
    text = _text(texts)
    return f"{text}Z" if isinstance(text, str) and _has_no_zone(text) else text


def _list(texts: list[str]) -> Any:
    return texts


_READ: Mapping[str, Callable[[list[str]], Any]] = MappingProxyType(
    {
        **dict.fromkeys(("text", "textarea", "email", "phone", "url", "date", "select"), _text),
        **dict.fromkeys(("number", "integer"), _number),
        "boolean": _boolean,
        "datetime": _moment,
        "multiselect": _list,
    }
)

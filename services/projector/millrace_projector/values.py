"""From what a record says to what a column takes. Whatever Postgres would refuse is refused or cleaned here.

One value that a column refuses fails the COPY of a whole batch, so nothing goes into a row unchecked: ids and whole
numbers and times out of range raise Reject, texts lose their `\\u0000`, JSON gets a cleaned copy or a reason.
Ids stay text (32 hexadecimal digits): the driver packs them, and they sort as their uuids do.
"""

import json
import re
from datetime import UTC, datetime
from functools import lru_cache

from millrace_core.errors import Reject

_id = re.compile(r"[a-z]{1,16}_([0-9a-f]{32})").fullmatch
_INT4_MAX = 2**31 - 1
# Where a number may be one that jsonb refuses (numeric ends at 131,072 digits) or that swells when it is written out:
# an exponent of three digits or more, or a very long row of digits. Inside a string it only costs the slow way. All
# digits are made alike first: two searches for fixed bytes cost a tenth of one for a pattern.
_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
_BIG_EXPONENT = b"0e000"
_MANY_DIGITS = b"0" * 300
_ODD_NUMBER = "a number is out of range"
_NOT_UTF8 = "it is not UTF-8"
# Every escape of a JSON text, one by one (so that `\\\\u0000`, a backslash and "u0000", is none of them); a pair of
# surrogates counts as one.
_escape = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)


def uuid_hex(id: str) -> str:
    """The uuid of a prefixed id, as 32 lower-case hexadecimal digits. Raises Reject when it is none."""
    match = _id(id)
    if match is None:
        raise Reject(f"{clean(id[:80])!r} is not an id: expected a prefix, an underscore and 32 hexadecimal digits")
    return match[1]


# For ids that few things have and many records name: subscriptions, endpoints, plans.
known_uuid_hex = lru_cache(maxsize=4_096)(uuid_hex)


def uuid_hex_or_none(id: str | None) -> str | None:
    """Like `uuid_hex`; None stays None."""
    return None if id is None else uuid_hex(id)


def moment(ms: int) -> datetime:
    """Milliseconds since 1970 as a time. Raises Reject outside the years 1 to 9999."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise Reject(f"{ms} is not a time in milliseconds since 1970") from None


def moment_or_none(ms: int | None) -> datetime | None:
    """Like `moment`; None stays None."""
    return None if ms is None else moment(ms)


def int4(value: int) -> int:
    """A whole number that fits its column. Raises Reject when it does not."""
    if not -_INT4_MAX <= value <= _INT4_MAX:
        raise Reject(f"{value} is out of range")
    return value


def int4_or_none(value: int | None) -> int | None:
    """Like `int4`; None stays None."""
    return None if value is None else int4(value)


def int8(value: int) -> int:
    """Like `int4`, for the wider columns."""
    if not -(2**63) <= value < 2**63:
        raise Reject(f"{value} is out of range")
    return value


def short_topic(name: str) -> str:
    """`millrace.<namespace>.events.v1` → `events`: rows outlive a deployment's names."""
    return name.removesuffix(".v1").rpartition(".")[2]


def clean(value: str) -> str:
    """Text without the one character that Postgres cannot store."""
    return value.replace("\x00", "") if "\x00" in value else value


def clean_or_none(value: str | None) -> str | None:
    """Like `clean`; None stays None."""
    return value.replace("\x00", "") if value is not None and "\x00" in value else value


def json_copy(raw: bytes) -> tuple[str | None, str | None]:
    """A copy of JSON bytes for a jsonb column, and None; or None, and why there is none.

    `\\u0000` is left out of it, half a surrogate pair becomes U+FFFD."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None, _NOT_UTF8
    alike = raw.translate(_ALIKE, b"+-")
    if (_BIG_EXPONENT in alike or _MANY_DIGITS in alike) and _has_odd_number(text):
        return None, _ODD_NUMBER
    if "\\u" not in text:
        return text, None
    return _escape.sub(_kept, text), None


def _has_odd_number(text: str) -> bool:
    odd = False

    def look(number: str) -> None:
        nonlocal odd
        mantissa, _, exponent = number.lower().partition("e")
        odd = odd or len(mantissa) > 300 or (exponent != "" and (len(exponent) > 6 or abs(int(exponent)) > 308))

    try:
        json.loads(text, parse_float=look, parse_int=look)
    except (ValueError, RecursionError):
        return True
    return odd


def _kept(escape: re.Match[str]) -> str:
    text = escape[0]
    if text == "\\u0000":
        return ""
    return "\\ufffd" if len(text) == 6 and text[2] in "dD" and text[3] in "89abcdefABCDEF" else text

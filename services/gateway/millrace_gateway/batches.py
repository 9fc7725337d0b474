"""A batch's body, into items that are each accepted or refused on their own. Pure.

JSON array, NDJSON, or a CloudEvents batch. Only what makes the whole unreadable, or too long, refuses the whole.
"""

from typing import TypeVar

import msgspec
import orjson

from millrace_core import limits
from millrace_core.errors import Reject

T = TypeVar("T")

_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class TooMany(Reject):
    """The batch has more items than are taken at once."""


def split_array(body: bytes) -> list[bytes]:
    """The items of a JSON array, as their bytes. Raises Reject when it is none, TooMany when it is too long."""
    try:
        items = _decode_array(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Reject(_why_no_array(body)) from None
    return [bytes(item) for item in _bounded(items)]


def split_lines(body: bytes) -> list[bytes]:
    """The items of NDJSON: one JSON text a line, empty lines left out. Raises TooMany when there are too many."""
    return _bounded([line for line in map(bytes.strip, body.split(b"\n")) if line])


def _bounded(items: list[T]) -> list[T]:
    if len(items) > limits.BATCH_ITEMS_MAX:
        raise TooMany(f"the batch has {len(items)} items: send up to {limits.BATCH_ITEMS_MAX} at once")
    return items


def _why_no_array(body: bytes) -> str:
    try:
        loaded = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return f"the body is not valid JSON: {error}. Correct it and send it again"
    hint = "send a JSON array of events, or NDJSON with Content-Type: application/x-ndjson"
    return f"the body is {'an object' if isinstance(loaded, dict) else 'no array'}: {hint}"

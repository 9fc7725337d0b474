"""Pieces that several views share: errors of attempts, and JSON that is shown byte for byte."""

from dataclasses import dataclass
from typing import Any

import orjson

from millrace_store.aggregates import Row

Json = Any
"""A JSON value. Where it came in as bytes it goes out as the same bytes."""


@dataclass(frozen=True, slots=True)
class ErrorView:
    code: str
    message: str


def error_of(row: Row) -> ErrorView | None:
    """The error in a row's error_code and error_message, if any."""
    return None if row["error_code"] is None else ErrorView(row["error_code"], row["error_message"] or "")


def raw(value: bytes | None) -> Json:
    """Stored JSON bytes, to be written out as they are."""
    return None if value is None else orjson.Fragment(value)

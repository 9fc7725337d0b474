"""How the window table is restored from a changelog that may hold anything.

Faust restores batch by batch and takes a record that it cannot decode for one that is still to come, so a single one
would keep the meter from ever beginning. Here such a record is no change at all. The figures are approximate anyway.
"""

from collections.abc import Iterable
from typing import Any

import faust
import orjson
from faust.serializers.codecs import Codec


class ReadableJson(Codec):
    """JSON; what is none is read as null."""

    def _loads(self, s: bytes) -> Any:
        try:
            return orjson.loads(s)
        except orjson.JSONDecodeError:
            return None

    def _dumps(self, s: Any) -> bytes:
        return orjson.dumps(s)


class RestoredTable(faust.Table):  # type: ignore[type-arg]
    """A table that leaves out of its changelog what is no window."""

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        super().apply_changelog_batch([event for event in batch if is_window(event.key, event.value)])


def is_window(key: Any, value: Any) -> bool:
    """Whether this is what the meter writes: [text, [start, end]] and [events, runs, deliveries], or nothing for a
    window that is over."""
    match key:
        case [str(), [float() | int(), float() | int()]]:
            pass
        case _:
            return False
    return value is None or (isinstance(value, list) and len(value) == 3 and all(type(count) is int for count in value))

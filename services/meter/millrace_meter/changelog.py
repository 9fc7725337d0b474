"""How the window table is restored, without losing to a damaged changelog or to what waits on `tallies`.

Faust restores batch by batch and takes a record that it cannot decode for one that is still to come, so a single one
would keep the meter from ever beginning. Here such a record is no change at all. And Faust lets the tallies flow before
it has sought their position, so that after a restore four of ten starts skipped some of those that had waited. Here
nothing flows meanwhile.
"""

from collections.abc import Iterable
from typing import Any

import faust
import orjson
from faust.serializers.codecs import Codec
from faust.tables import TableManager
from faust.tables.recovery import Recovery


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


class QuietRecovery(Recovery):
    """Stops the flow until the positions are sought; the last step of Faust's own lets it go on."""

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        consumer: Any = self.app.consumer
        consumer.stop_flow()
        await consumer.wait_for_stopped_flow()
        await super().on_recovery_completed(generation_id)


class QuietTables(TableManager):
    """Faust's tables with a quiet recovery."""

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = QuietRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


def is_window(key: Any, value: Any) -> bool:
    """Whether this is what the meter writes: [text, [start, end]] and [events, runs, deliveries], or nothing for a
    window that is over."""
    match key:
        case [str(), [float() | int(), float() | int()]]:
            pass
        case _:
            return False
    return value is None or (isinstance(value, list) and len(value) == 3 and all(type(count) is int for count in value))

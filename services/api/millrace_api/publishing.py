"""Between the relay, which speaks of outbox entries, and the writer of `control`, which is fenced by the broker."""

from collections.abc import Callable, Sequence

from millrace_core.errors import Retry, Stale
from millrace_kafka.control_log import ControlEntry, ControlWriter
from millrace_store.outbox import Entry


class RelayWriter:
    """A `millrace_store.relay.ControlLog`: one life of the relay's writer."""

    def __init__(self, writer: ControlWriter, *, published: Callable[[int], None] = lambda _: None) -> None:
        """`published` is told how many entries went out."""
        self._writer = writer
        self._published = published

    async def start(self) -> None:
        await self._writer.start()

    async def write(self, entries: Sequence[Entry]) -> int:
        """Raises Retry also when another writer has fenced this one: the relay then begins its life again."""
        rows = [ControlEntry(entry.kind, entry.account, entry.id, entry.version, entry.value) for entry in entries]
        try:
            position = await self._writer.write(rows)
        except Stale as error:
            raise Retry(str(error)) from error
        self._published(len(rows))
        return position

    async def stop(self) -> None:
        await self._writer.stop()

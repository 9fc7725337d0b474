"""Events about customers and the like, projected at once, as the projector would have done it."""

import itertools
from typing import Any

import orjson

from millrace_core import ids
from millrace_core.clock import SystemClock
from millrace_core.event import to_output
from millrace_core.messages import Event, Raw
from millrace_core.record import Written
from millrace_projector.handlers import HANDLERS
from millrace_projector.rows import Rows
from millrace_store.pool import connect
from millrace_store.projection import Projection, Write

_offsets = itertools.count(1_000_000)


async def tell(dsn: str, account: str, name: str, properties: Any) -> None:
    """`e:ops/<name>` came, and is in the read models."""
    event = Event(
        id=ids.new_id(ids.EVENT),
        account=account,
        identifier=f"e:ops/{name}",
        received_at=SystemClock().now_ms(),
        properties=Raw(orjson.dumps(properties)),
    )
    output = to_output(event, surface="ops")
    topic = "millrace.test.events.v1"
    record = Written(topic, 0, next(_offsets), event.received_at, output.key, output.value, output.headers)
    rows = Rows()
    HANDLERS["events"](record, rows)
    writes = [Write(table.name, table.columns, fresh, merged) for table, fresh, merged in rows.written()]
    connection = await connect(dsn, name="test telling")
    try:
        await Projection().write(connection, [], writes, careful=frozenset())
    finally:
        await connection.close()

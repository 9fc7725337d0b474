"""`python -m tests.support.server_owner HOME`: starts Kafka and Postgres below HOME, prints their pids, waits to be
killed."""

import asyncio
import json
import sys
from pathlib import Path

from millrace_devstack.kafka import Kafka
from millrace_devstack.postgres import Postgres


async def _main(home: Path) -> None:
    kafka = Kafka(home / "kafka")
    postgres = Postgres(home / "postgres", fsync=False)
    await asyncio.gather(kafka.start(), postgres.start())
    told = {"kafka": kafka.pid, "postgres": postgres.pid, "bootstrap": kafka.bootstrap, "dsn": postgres.dsn()}
    print(json.dumps(told), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))

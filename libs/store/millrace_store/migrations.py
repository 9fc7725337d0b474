"""Migrations: plain files `NNNN_name.sql`, applied in order, once each, by a command (a Job in Kubernetes).

Each file runs in a transaction of its own together with the row that remembers it, so a crash leaves it either applied
or not. A file whose first line is `-- no-transaction` runs outside one, statement by statement (for CREATE INDEX
CONCURRENTLY): such a file must be safe to repeat. One session advisory lock keeps two runners apart. A file that was
applied is never changed: its SHA-256 is kept, and a difference is refused before anything runs.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import asyncpg

from millrace_core.errors import Fatal
from millrace_store.pool import Connection, connect

# Any fixed number: the first eight bytes of SHA-256 of "millrace migrations", as a signed bigint.
_LOCK = int.from_bytes(hashlib.sha256(b"millrace migrations").digest()[:8], "big", signed=True)
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_NO_TRANSACTION = "-- no-transaction"
_APPLIED_TABLE = """
CREATE TABLE IF NOT EXISTS public.millrace_migrations (
    number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)"""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        return not self.sql.startswith(_NO_TRANSACTION)

    def statements(self) -> list[str]:
        """The statements of a file without a transaction: it may hold no quoted semicolon."""
        return [part.strip() for part in self.sql.split(";") if part.strip().removeprefix(_NO_TRANSACTION).strip()]


def packaged() -> tuple[Migration, ...]:
    """The migrations that ship with this release, in order. Raises Fatal for a wrong name or number used twice."""
    folder = resources.files("millrace_store") / "migrations"
    return ordered({item.name: item.read_text() for item in folder.iterdir() if item.name.endswith(".sql")})


def ordered(files: dict[str, str]) -> tuple[Migration, ...]:
    """Migrations from file names and texts."""
    found: dict[int, Migration] = {}
    for name, sql in sorted(files.items()):
        match = _NAME.fullmatch(name)
        if match is None:
            raise Fatal(f"{name} is not a migration: its name must be like 0001_what_it_does.sql")
        number = int(match[1])
        if number in found:
            raise Fatal(f"{name} and {found[number].name} have the same number")
        found[number] = Migration(number, name, sql)
    return tuple(found[number] for number in sorted(found))


async def migrate(dsn: str, *, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is missing; answers the names applied now. Safe to call at once from many places.

    Raises Fatal when an applied file was changed or is unknown to this release (an older one), Retry when the server is
    away."""
    wanted = packaged() if migrations is None else tuple(migrations)
    connection = await connect(dsn, name="millrace migrate", statement_s=0)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(_APPLIED_TABLE)
        missing = _missing(wanted, await _applied(connection))
        for migration in missing:
            await _apply(connection, migration)
        return [migration.name for migration in missing]
    finally:
        await connection.close()  # and with the session, the lock


async def pending(dsn: str) -> list[str]:
    """The names of packaged migrations that the database does not have. Raises like `migrate`."""
    connection = await connect(dsn, name="millrace migrate")
    try:
        exists = await connection.fetchval("SELECT to_regclass('public.millrace_migrations') IS NOT NULL")
        applied = await _applied(connection) if exists else {}
        return [migration.name for migration in _missing(packaged(), applied)]
    finally:
        await connection.close()


async def _applied(connection: Connection) -> dict[int, tuple[str, str]]:
    rows = await connection.fetch("SELECT number, name, sha256 FROM public.millrace_migrations")
    return {row["number"]: (row["name"], row["sha256"]) for row in rows}


def _missing(wanted: Sequence[Migration], applied: dict[int, tuple[str, str]]) -> list[Migration]:
    known = {migration.number: migration for migration in wanted}
    for number, (name, sha256) in sorted(applied.items()):
        migration = known.get(number)
        if migration is None:
            raise Fatal(
                f"the database has migration {name}, which this release does not know: it is older than the data"
            )
        if migration.sha256 != sha256:
            raise Fatal(f"{migration.name} was changed after it had been applied: write a new migration instead")
    return [migration for migration in wanted if migration.number not in applied]


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        if migration.in_transaction:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await _remember(connection, migration)
        else:
            for statement in migration.statements():
                await connection.execute(statement)
            await _remember(connection, migration)
    except asyncpg.PostgresError as error:
        raise Fatal(f"{migration.name} failed: {error}") from error


async def _remember(connection: Connection, migration: Migration) -> None:
    await connection.execute(
        "INSERT INTO public.millrace_migrations (number, name, sha256) VALUES ($1, $2, $3)",
        migration.number,
        migration.name,
        migration.sha256,
    )

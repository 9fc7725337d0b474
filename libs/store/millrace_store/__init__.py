"""The only door to asyncpg: migrations, named SQL, outbox and relay, positions."""

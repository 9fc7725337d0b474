-- Work that is done outside Postgres under an `Idempotency-Key` holds the key by a time, not by a connection.
ALTER TABLE control.idempotency_keys ADD COLUMN held_until timestamptz;
COMMENT ON COLUMN control.idempotency_keys.held_until IS
    'until then the work is another request''s, unless it has been answered; over early where it failed';

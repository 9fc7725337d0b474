-- Retention: days that are kept, days that are gone, and what is too large for a row.

-- How long an account's things are kept and shown, in whole UTC days behind today.
ALTER TABLE control.accounts ADD COLUMN retention_days integer NOT NULL DEFAULT 14;

-- The first moment, and the first id, that an account is shown. No row of `read` reaches a client without one of them.
CREATE FUNCTION control.kept_since(account text) RETURNS timestamptz LANGUAGE sql STABLE RETURN (
    SELECT date_trunc('day', now(), 'UTC') - make_interval(hours => 24 * retention_days)
    FROM control.accounts WHERE id = kept_since.account);
CREATE FUNCTION control.first_kept(account text) RETURNS uuid LANGUAGE sql STABLE RETURN
    (lpad(to_hex((extract(epoch FROM control.kept_since(account)) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- Days whose rows are gone for good. Beside `read`, not in it: a rebuild must not bring them back.
CREATE TABLE control.dropped_days (
    day        date        PRIMARY KEY,
    first_id   uuid        NOT NULL,
    after_id   uuid        NOT NULL,
    dropped_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN control.dropped_days.after_id IS 'the first id of the day behind it';

-- A payload over 64 KB lies here; the column it belongs to holds a reference: a NUL, its length in four bytes, its
-- SHA-256. JSON never begins with a NUL.
CREATE TABLE read.payloads (
    owner   uuid  NOT NULL,
    digest  bytea NOT NULL,
    account text  NOT NULL,
    bytes   bytea NOT NULL,
    PRIMARY KEY (owner, digest)
) PARTITION BY RANGE (owner);
CREATE TABLE read.payloads_default PARTITION OF read.payloads DEFAULT;
COMMENT ON COLUMN read.payloads.owner IS 'the event, run or delivery: the day of its id is the payload''s';

CREATE FUNCTION control.payload_bytes(payload bytea) RETURNS integer LANGUAGE sql IMMUTABLE RETURN
    CASE WHEN octet_length(payload) = 37 AND get_byte(payload, 0) = 0
        THEN ('x' || encode(substr(payload, 2, 4), 'hex'))::bit(32)::integer ELSE octet_length(payload) END;
COMMENT ON FUNCTION control.payload_bytes IS 'the size of a payload, wherever it lies; reads none';

-- Dead letters by the day of their own record.
CREATE TABLE read.letters_so_far AS TABLE read.dead_letters;
DROP TABLE read.dead_letters;
CREATE TABLE read.dead_letters (
    topic            text        NOT NULL,
    partition        integer     NOT NULL,
    "offset"         bigint      NOT NULL,
    account          text        NOT NULL,
    at               timestamptz NOT NULL,
    reason           text        NOT NULL,
    source_topic     text,
    source_partition integer,
    source_offset    bigint,
    key              bytea,
    value            bytea,
    headers          jsonb       NOT NULL,
    PRIMARY KEY (topic, partition, "offset", at)
) PARTITION BY RANGE (at);
CREATE INDEX ON read.dead_letters (account, at DESC, topic, partition, "offset" DESC);
CREATE TABLE read.dead_letters_default PARTITION OF read.dead_letters DEFAULT;
INSERT INTO read.dead_letters SELECT * FROM read.letters_so_far;
DROP TABLE read.letters_so_far;

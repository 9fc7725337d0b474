-- Events replayed: what was asked for, and how far it has come. The API's worker moves the cursor after each step whose
-- records were acked, so a crash repeats one step at most.
CREATE TABLE control.replays (
    account      text        NOT NULL REFERENCES control.accounts,
    id           uuid        NOT NULL,
    state        text        NOT NULL CHECK (state IN ('waiting', 'running', 'completed', 'cancelled', 'failed')),
    since        timestamptz NOT NULL,
    until        timestamptz NOT NULL,
    pattern      text        NOT NULL,
    filter       text,
    "where"      text,
    subscription uuid,
    per_s        integer     NOT NULL,
    looked_at    bigint      NOT NULL DEFAULT 0,
    written      bigint      NOT NULL DEFAULT 0,
    cursor_at    timestamptz NOT NULL,
    cursor_id    uuid        NOT NULL,
    requested_by text        NOT NULL,
    reason       text,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    PRIMARY KEY (account, id)
);
CREATE INDEX ON control.replays (id) WHERE ended_at IS NULL;
COMMENT ON COLUMN control.replays.state IS 'waiting: the read models do not hold yet all that was on the log when it was asked for';
COMMENT ON COLUMN control.replays.cursor_at IS 'with cursor_id: the last event, by (received_at, id), that was dealt with';

-- Dead letters sent again: once for each key the caller gives. `asked` is written before the record, `written` after its
-- ack; one that stays `asked` may or may not have been written, and is never written by itself.
CREATE TABLE control.redrives (
    account       text        NOT NULL REFERENCES control.accounts,
    topic         text        NOT NULL,
    partition     integer     NOT NULL,
    "offset"      bigint      NOT NULL,
    key           text        NOT NULL,
    state         text        NOT NULL CHECK (state IN ('asked', 'written', 'refused')),
    target        text        NOT NULL,
    to_partition  integer,
    to_offset     bigint,
    reason        text,
    requested_by  text        NOT NULL,
    asked_at      timestamptz NOT NULL,
    done_at       timestamptz,
    PRIMARY KEY (account, topic, partition, "offset", key)
);

-- A dead letter may be sent again, so the end that it was is weak: a real one stands over it.
COMMENT ON COLUMN read.runs.status IS
    'queued, stale, running, dead_lettered, completed, failed, cancelled or timed_out; the first of the last four stands';
COMMENT ON COLUMN read.deliveries.status IS
    'queued, stale, retrying, dead_lettered, succeeded, failed or cancelled; the first of the last three stands';

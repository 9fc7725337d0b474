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

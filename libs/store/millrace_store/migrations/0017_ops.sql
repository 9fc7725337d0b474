-- What events told of customers, tickets, invoices and subscriptions: one row a thing, made by the projector. A member is
-- kept as [place in the log, value], so that events may be read in any order; an erased thing has none.
CREATE TABLE read.entities (
    account     text        NOT NULL,
    kind        text        NOT NULL,
    id          text        COLLATE "C" NOT NULL,
    at          timestamptz NOT NULL,
    created_ms  bigint      NOT NULL,
    updated_ms  bigint      NOT NULL,
    erased      text        COLLATE "C",
    members     jsonb       NOT NULL,
    event       uuid        NOT NULL,
    partition   integer     NOT NULL,
    "offset"    bigint      NOT NULL,
    PRIMARY KEY (account, kind, id)
) WITH (fillfactor = 70);
CREATE INDEX entities_by_age ON read.entities (account, kind, created_ms DESC, id DESC) WHERE members <> '{}';
CREATE INDEX entities_by_status ON read.entities
    (account, kind, (members -> 'status' ->> 1), created_ms DESC, id DESC) WHERE members <> '{}';
CREATE INDEX entities_by_customer ON read.entities
    (account, kind, (members -> 'customer_id' ->> 1), created_ms DESC, id DESC) WHERE members <> '{}';
CREATE INDEX entities_by_words ON read.entities USING gin (
    (array_to_tsvector(ARRAY[account, kind]) || to_tsvector('simple'::regconfig,
        COALESCE(members -> 'name' ->> 1, '') || ' ' || COALESCE(members -> 'email' ->> 1, '') || ' '
        || COALESCE(members -> 'company' ->> 1, '') || ' ' || COALESCE(members -> 'number' ->> 1, '') || ' '
        || COALESCE(members -> 'subject' ->> 1, ''))));
COMMENT ON COLUMN read.entities.id IS 'the sender''s own';
COMMENT ON COLUMN read.entities.at IS 'of the first event about it';
COMMENT ON COLUMN read.entities.created_ms IS 'as the sender says, else when the first event about it came';
COMMENT ON COLUMN read.entities.erased IS 'the place of the last event that erased it';
COMMENT ON COLUMN read.entities.event IS 'the last one about it';

-- What an account lets be read of each kind. Without a row it is what is shipped.
CREATE TABLE control.safe_fields (
    account    text        NOT NULL REFERENCES control.accounts,
    kind       text        NOT NULL,
    fields     text[]      NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (account, kind)
);

-- An account's connections to other platforms: a connector, what it is told, and how it fares.
CREATE TABLE control.connections (
    account          text        NOT NULL REFERENCES control.accounts,
    id               uuid        NOT NULL,
    public_id        text        NOT NULL UNIQUE,
    version          bigint      NOT NULL,
    connector        text        NOT NULL,
    name             text        NOT NULL,
    url              text,
    config           text        NOT NULL,
    sealed_secrets   text        NOT NULL,
    enabled          boolean     NOT NULL,
    declared         text,
    declared_at      timestamptz,
    endpoint         uuid,
    received         bigint      NOT NULL DEFAULT 0,
    refused          bigint      NOT NULL DEFAULT 0,
    failed           bigint      NOT NULL DEFAULT 0,
    timed_out        bigint      NOT NULL DEFAULT 0,
    events           bigint      NOT NULL DEFAULT 0,
    failures_in_row  integer     NOT NULL DEFAULT 0,
    last_received_at timestamptz,
    last_event_at    timestamptz,
    last_error_at    timestamptz,
    last_error       text,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    deleted_at       timestamptz,
    PRIMARY KEY (account, id)
);
CREATE INDEX ON control.connections (account, id DESC) WHERE deleted_at IS NULL;
COMMENT ON COLUMN control.connections.public_id IS 'names it in the address that its platform posts to';
COMMENT ON COLUMN control.connections.url IS 'of a remote connector: where it serves the five calls';
COMMENT ON COLUMN control.connections.config IS 'JSON as its owner wrote it';
COMMENT ON COLUMN control.connections.sealed_secrets IS 'JSON, under the key ring';
COMMENT ON COLUMN control.connections.declared IS 'JSON: what the connector last said of itself';
COMMENT ON COLUMN control.connections.endpoint IS 'the webhook endpoint of what it subscribes to';

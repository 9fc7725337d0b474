-- The read models: what the projector makes of the log, and nothing else. Every value comes from a record (its members,
-- its headers, its broker time), so that dropping the schema and reading the log again gives the same rows.
--
-- Rules of this schema:
--   * ids are bare uuids (the edge adds prefixes); their first 48 bits are a time, and the tables are partitioned by it,
--     a day each, made on demand by the projector; days out of its reach fall into the default partition;
--   * indexes and constraints carry their default names and no function or view lives here: a rebuild makes the schema
--     anew with LIKE … INCLUDING ALL beside this one and swaps the names;
--   * projections of different topics commute: a fact may be projected before the row it speaks of, so what only the
--     row's own record knows is nullable. A row without `created_at` is such a stub: lists begin below 'infinity'
--     (`(created_at, id) < ('infinity', …)`), which leaves stubs out;
--   * lists are newest first by (time, id), never by id alone: an event with a uniqueKey has an id whose time is the
--     day's start.

CREATE SCHEMA read;

CREATE TABLE read.positions (
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    next_offset bigint      NOT NULL,
    record_time timestamptz,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE read.events (
    id              uuid        NOT NULL,
    account         text        NOT NULL,
    identifier      text        NOT NULL,
    received_at     timestamptz NOT NULL,
    "timestamp"     text,
    unique_key      text,
    ordering_key    text,
    replay          text,
    hops            integer     NOT NULL,
    extensions      jsonb,
    partition       integer     NOT NULL,
    "offset"        bigint      NOT NULL,
    properties      bytea       NOT NULL,
    properties_json jsonb,
    json_refused    text,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX ON read.events (account, received_at DESC, id DESC);
CREATE INDEX ON read.events (account, identifier, received_at DESC, id DESC);
CREATE TABLE read.events_default PARTITION OF read.events DEFAULT;
COMMENT ON COLUMN read.events.properties IS 'exactly the bytes received';
COMMENT ON COLUMN read.events.properties_json IS 'a cleaned copy for searching; null with the reason in json_refused';

-- One row for each record on `events` (a repeat of a uniqueKey is a record of the same event): the event's own outcome
-- is the one whose (partition, offset) are the event's.
CREATE TABLE read.event_outcomes (
    event        uuid        NOT NULL,
    partition    integer     NOT NULL,
    "offset"     bigint      NOT NULL,
    account      text        NOT NULL,
    outcome      text        NOT NULL,
    decided_at   timestamptz NOT NULL,
    duplicate_of uuid,
    reason       text,
    PRIMARY KEY (event, partition, "offset")
) PARTITION BY RANGE (event);
CREATE TABLE read.event_outcomes_default PARTITION OF read.event_outcomes DEFAULT;

CREATE TABLE read.event_matches (
    event        uuid NOT NULL,
    kind         text NOT NULL,
    child        uuid NOT NULL,
    account      text NOT NULL,
    subscription uuid,
    endpoint     uuid,
    PRIMARY KEY (event, kind, child)
) PARTITION BY RANGE (event);
CREATE TABLE read.event_matches_default PARTITION OF read.event_matches DEFAULT;
COMMENT ON COLUMN read.event_matches.kind IS 'run or delivery';

CREATE TABLE read.runs (
    id            uuid NOT NULL,
    account       text NOT NULL,
    status        text NOT NULL,
    plan          uuid,
    plan_kind     text,
    plan_version  integer,
    plan_name     text,
    subscription  uuid,
    event         uuid,
    identifier    text,
    requested_by  text,
    input         bytea,
    output        bytea,
    error_code    text,
    error_message text,
    created_at    timestamptz,
    started_at    timestamptz,
    ended_at      timestamptz,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX ON read.runs (account, created_at DESC, id DESC);
CREATE INDEX ON read.runs (account, status, created_at DESC, id DESC);
CREATE INDEX ON read.runs (subscription, created_at DESC, id DESC) WHERE subscription IS NOT NULL;
CREATE INDEX ON read.runs (plan, created_at DESC, id DESC) WHERE plan IS NOT NULL;
CREATE INDEX ON read.runs (event) WHERE event IS NOT NULL;
CREATE TABLE read.runs_default PARTITION OF read.runs DEFAULT;
COMMENT ON COLUMN read.runs.status IS
    'queued, stale, running, completed, failed, cancelled, timed_out or dead_lettered; the first of the last five stands';

CREATE TABLE read.steps (
    run           uuid    NOT NULL,
    node          text    NOT NULL,
    account       text    NOT NULL,
    type          text,
    status        text    NOT NULL,
    attempts      integer NOT NULL,
    started_at    timestamptz,
    ended_at      timestamptz,
    retry_at      timestamptz,
    error_code    text,
    error_message text,
    output        bytea,
    PRIMARY KEY (run, node)
) PARTITION BY RANGE (run);
CREATE TABLE read.steps_default PARTITION OF read.steps DEFAULT;
COMMENT ON COLUMN read.steps.status IS 'running, retrying, completed or failed';

CREATE TABLE read.step_attempts (
    run           uuid    NOT NULL,
    node          text    NOT NULL,
    attempt       integer NOT NULL,
    account       text    NOT NULL,
    status        text    NOT NULL,
    started_at    timestamptz,
    ended_at      timestamptz,
    duration_ms   double precision,
    error_code    text,
    error_message text,
    retry_at      timestamptz,
    PRIMARY KEY (run, node, attempt)
) PARTITION BY RANGE (run);
CREATE TABLE read.step_attempts_default PARTITION OF read.step_attempts DEFAULT;
COMMENT ON COLUMN read.step_attempts.status IS 'running, completed or failed';

CREATE TABLE read.deliveries (
    id              uuid    NOT NULL,
    account         text    NOT NULL,
    endpoint        uuid    NOT NULL,
    event           uuid    NOT NULL,
    subscription    uuid,
    type            text,
    status          text    NOT NULL,
    attempts        integer NOT NULL,
    next_attempt_at timestamptz,
    last_status     integer,
    error_code      text,
    error_message   text,
    body            bytea,
    created_at      timestamptz,
    ended_at        timestamptz,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX ON read.deliveries (account, created_at DESC, id DESC);
CREATE INDEX ON read.deliveries (account, status, created_at DESC, id DESC);
CREATE INDEX ON read.deliveries (endpoint, created_at DESC, id DESC);
CREATE INDEX ON read.deliveries (subscription, created_at DESC, id DESC) WHERE subscription IS NOT NULL;
CREATE INDEX ON read.deliveries (event);
CREATE TABLE read.deliveries_default PARTITION OF read.deliveries DEFAULT;
COMMENT ON COLUMN read.deliveries.status IS
    'queued, stale, retrying, succeeded, failed, cancelled or dead_lettered; the first of the last four stands';

CREATE TABLE read.delivery_attempts (
    delivery      uuid             NOT NULL,
    n             integer          NOT NULL,
    account       text             NOT NULL,
    outcome       text             NOT NULL,
    at            timestamptz      NOT NULL,
    duration_ms   double precision NOT NULL,
    url           text             NOT NULL,
    status        integer,
    error_code    text,
    error_message text,
    response      text,
    retry_at      timestamptz,
    PRIMARY KEY (delivery, n)
) PARTITION BY RANGE (delivery);
CREATE TABLE read.delivery_attempts_default PARTITION OF read.delivery_attempts DEFAULT;

-- A refused record as it was. (topic, partition, offset) are the dead letter's own place; source_* the refused one's.
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
    PRIMARY KEY (topic, partition, "offset")
);
CREATE INDEX ON read.dead_letters (account, at DESC, topic, partition, "offset" DESC);

-- Changes on their way to the `control` topic. The API writes an entry in the transaction of the change itself; the
-- relay publishes what has no position yet (ids commit out of order, so never "greater than the last").
CREATE SCHEMA control;

CREATE TABLE control.control_outbox (
    id                 bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind               text        NOT NULL,
    account            text        NOT NULL,
    aggregate          text        NOT NULL,
    version            bigint      NOT NULL,
    value              bytea,
    published_position bigint,
    created_at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, account, aggregate, version)
);
CREATE INDEX ON control.control_outbox (id) WHERE published_position IS NULL;
COMMENT ON COLUMN control.control_outbox.value IS 'the JSON of the control record; null = the aggregate is deleted';

CREATE FUNCTION control.wake_relay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('control_outbox', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER wake_relay AFTER INSERT ON control.control_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION control.wake_relay();

-- What users of the API create and change. The API alone writes here, one transaction a request; each change of an
-- aggregate takes its next version and leaves through control.control_outbox in the same transaction.
--
-- Rules of this schema:
--   * the account leads every key, so no query can do without it;
--   * ids are bare uuids (the edge adds prefixes), made by the API, time-ordered;
--   * what was deleted keeps its row and its last version: history still names it, and `millrace control republish`
--     knows which versions it may not fall below.

CREATE TABLE control.accounts (
    id         text        PRIMARY KEY,
    version    bigint      NOT NULL,
    name       text        NOT NULL UNIQUE,
    plan       text        NOT NULL,
    enabled    boolean     NOT NULL DEFAULT true,
    unordered  text[]      NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL
);
COMMENT ON COLUMN control.accounts.unordered IS 'identifiers whose order was given up so that they spread';

CREATE TABLE control.api_keys (
    account       text        NOT NULL REFERENCES control.accounts,
    id            uuid        NOT NULL,
    version       bigint      NOT NULL,
    name          text        NOT NULL,
    surface       text        NOT NULL,
    hint          text        NOT NULL,
    digest        text        NOT NULL UNIQUE,
    scopes        text[]      NOT NULL,
    test          boolean     NOT NULL DEFAULT false,
    sealed_secret text,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz,
    revoked_at    timestamptz,
    PRIMARY KEY (account, id)
);
COMMENT ON COLUMN control.api_keys.hint IS 'what may be shown for ever: the prefix and the last four characters';
COMMENT ON COLUMN control.api_keys.digest IS 'HMAC-SHA256 of the key under the pepper, hexadecimal';
COMMENT ON COLUMN control.api_keys.sealed_secret IS 'the secret of keys that sign, under the key ring';

CREATE TABLE control.plans (
    account     text        NOT NULL REFERENCES control.accounts,
    id          uuid        NOT NULL,
    version     bigint      NOT NULL,
    kind        text        NOT NULL CHECK (kind IN ('job', 'chain')),
    name        text        NOT NULL,
    description text,
    definition  text        NOT NULL,
    compiled    bytea       NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    deleted_at  timestamptz,
    PRIMARY KEY (account, id)
);
CREATE INDEX ON control.plans (account, kind, id DESC) WHERE deleted_at IS NULL;
COMMENT ON COLUMN control.plans.definition IS 'JSON as its author wrote it (jsonb would refuse \u0000 and move numbers)';
COMMENT ON COLUMN control.plans.compiled IS 'the JSON that a run pins';

CREATE TABLE control.webhook_endpoints (
    account             text               NOT NULL REFERENCES control.accounts,
    id                  uuid               NOT NULL,
    version             bigint             NOT NULL,
    url                 text               NOT NULL,
    description         text,
    events              text[]             NOT NULL,
    sealed_secret       text               NOT NULL,
    old_sealed_secret   text,
    old_secret_until    timestamptz,
    enabled             boolean            NOT NULL,
    retry_schedule_s    double precision[],
    timeout_s           double precision   NOT NULL,
    concurrency         integer            NOT NULL,
    created_at          timestamptz        NOT NULL,
    updated_at          timestamptz        NOT NULL,
    deleted_at          timestamptz,
    PRIMARY KEY (account, id)
);
CREATE INDEX ON control.webhook_endpoints (account, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX ON control.webhook_endpoints (old_secret_until) WHERE old_secret_until IS NOT NULL;
COMMENT ON COLUMN control.webhook_endpoints.old_secret_until IS 'until then deliveries are signed with both secrets';

CREATE TABLE control.subscriptions (
    account     text        NOT NULL REFERENCES control.accounts,
    id          uuid        NOT NULL,
    version     bigint      NOT NULL,
    pattern     text        NOT NULL,
    filter      text,
    "where"     text,
    priority    integer     NOT NULL,
    target_kind text        NOT NULL CHECK (target_kind IN ('job', 'chain', 'webhook')),
    target_id   uuid        NOT NULL,
    enabled     boolean     NOT NULL,
    managed_by  uuid,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    deleted_at  timestamptz,
    PRIMARY KEY (account, id)
);
CREATE INDEX ON control.subscriptions (account, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX ON control.subscriptions (account, target_id) WHERE deleted_at IS NULL;
COMMENT ON COLUMN control.subscriptions.managed_by IS
    'the webhook endpoint whose list of events this subscription is part of; it is changed there';

-- What an endpoint asks of its callers, and when and why it was disabled.
ALTER TABLE control.webhook_endpoints
    ADD COLUMN rate            double precision,
    ADD COLUMN disabled_at     timestamptz,
    ADD COLUMN disabled_reason text CHECK (disabled_reason IN ('requested', 'gone', 'failing')),
    ADD COLUMN judged_since    timestamptz NOT NULL DEFAULT now();
UPDATE control.webhook_endpoints SET disabled_at = updated_at, disabled_reason = 'requested' WHERE NOT enabled;
ALTER TABLE control.webhook_endpoints ALTER COLUMN judged_since DROP DEFAULT;
COMMENT ON COLUMN control.webhook_endpoints.rate IS 'deliveries a second at most';
COMMENT ON COLUMN control.webhook_endpoints.disabled_reason IS
    'requested by its owner, gone (it answered 410), or failing (nothing but failures for days)';
COMMENT ON COLUMN control.webhook_endpoints.judged_since IS
    'what came before says nothing about it: it was created, enabled or given its URL then';

-- Endpoints that the platform disabled by itself. The entry is made with the change, and `told_at` set when the event
-- about it is on the log: a crash in between publishes it again, under the same id.
CREATE TABLE control.disablings (
    account     text        NOT NULL REFERENCES control.accounts,
    endpoint    uuid        NOT NULL,
    disabled_at timestamptz NOT NULL,
    reason      text        NOT NULL CHECK (reason IN ('gone', 'failing')),
    since       timestamptz NOT NULL,
    told_at     timestamptz,
    PRIMARY KEY (account, endpoint, disabled_at)
);
CREATE INDEX ON control.disablings (disabled_at) WHERE told_at IS NULL;
COMMENT ON COLUMN control.disablings.since IS 'when it answered 410, or the first of the failures';

-- Deliveries that ended in a 410: few, and looked for every second.
CREATE INDEX ON read.deliveries (ended_at) WHERE error_code = 'http_410' AND status = 'failed';

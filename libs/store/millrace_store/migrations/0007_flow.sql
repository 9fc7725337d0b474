-- Flow control: what a subscription asks for, and what a run that is held back waits for.
ALTER TABLE control.subscriptions ADD COLUMN flow text;
COMMENT ON COLUMN control.subscriptions.flow IS
    'JSON as it is published; null = never had one, {} = had one: its runs still come by the flow''s owner';

ALTER TABLE read.runs
    ADD COLUMN flow_key       text,
    ADD COLUMN waiting_reason text,
    ADD COLUMN waiting_until  timestamptz,
    ADD COLUMN bundle         bytea,
    ADD COLUMN absorbed_into  uuid;
COMMENT ON COLUMN read.runs.status IS
    'queued, stale, running, dead_lettered, completed, failed, cancelled, timed_out or absorbed; the first of the last five stands';
COMMENT ON COLUMN read.runs.waiting_reason IS 'what held it back as last told; it waits while it is queued';
COMMENT ON COLUMN read.runs.bundle IS 'the list that its input became; input is its own event''s';

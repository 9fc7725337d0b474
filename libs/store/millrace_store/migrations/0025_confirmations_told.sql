-- What is asked and decided is committed first; the log is told of it after that, by whoever comes to it.
ALTER TABLE control.confirmations ADD COLUMN told text;
UPDATE control.confirmations SET told = state;
CREATE INDEX ON control.confirmations (coalesce(decided_at, created_at)) WHERE told IS DISTINCT FROM state;
COMMENT ON COLUMN control.confirmations.told IS 'the state of which the log was told last; null = of none yet';

-- Outcomes come in the order of time, so the smallest of indexes finds those of the last seconds: whoever counts what was
-- never asked for need not read a whole day each time.
CREATE INDEX event_outcomes_decided_at_idx ON read.event_outcomes
    USING brin (decided_at) WITH (pages_per_range = 16, autosummarize = on);

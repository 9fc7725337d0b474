-- What is asked of a plan's runs is, more often than not, which of them failed: among all the failed runs of the account
-- those of a plan that has none took longest to be found missing. In place of the index without the status, so that
-- there is none more to write.
CREATE INDEX runs_plan_status_created_at_id_idx ON read.runs (plan, status, created_at DESC, id DESC)
    WHERE plan IS NOT NULL;
DROP INDEX read.runs_plan_created_at_id_idx;

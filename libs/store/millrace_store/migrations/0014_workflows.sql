-- Workflows: what is written now, and the versions of it that were published.
CREATE TABLE control.workflows (
    account     text        NOT NULL REFERENCES control.accounts,
    id          uuid        NOT NULL,
    version     bigint      NOT NULL,
    name        text        NOT NULL,
    description text,
    status      text        NOT NULL CHECK (status IN ('draft', 'published')),
    definition  text        NOT NULL,
    draft       bytea,
    is_changed  boolean     NOT NULL,
    published   integer     NOT NULL DEFAULT 0,
    compiled    bytea,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    deleted_at  timestamptz,
    PRIMARY KEY (account, id)
);
COMMENT ON COLUMN control.workflows.version IS 'of the row: one more with each change';
COMMENT ON COLUMN control.workflows.definition IS 'JSON as it was saved last';
COMMENT ON COLUMN control.workflows.draft IS 'what a test of it pins; null = it has no nodes yet';
COMMENT ON COLUMN control.workflows.is_changed IS 'what was saved last is not what was published last';
COMMENT ON COLUMN control.workflows.published IS 'its newest published version; 0 = none';
COMMENT ON COLUMN control.workflows.compiled IS 'the JSON that a run of that version pins';

CREATE TABLE control.workflow_versions (
    account      text        NOT NULL,
    workflow     uuid        NOT NULL,
    n            integer     NOT NULL,
    name         text        NOT NULL,
    definition   text        NOT NULL,
    published_at timestamptz NOT NULL,
    PRIMARY KEY (account, workflow, n),
    FOREIGN KEY (account, workflow) REFERENCES control.workflows
);

ALTER TABLE control.subscriptions
    DROP CONSTRAINT subscriptions_target_kind_check,
    ADD CONSTRAINT subscriptions_target_kind_check CHECK (target_kind IN ('job', 'chain', 'workflow', 'webhook'));

COMMENT ON COLUMN read.steps.status IS 'running, retrying, completed, failed or skipped';

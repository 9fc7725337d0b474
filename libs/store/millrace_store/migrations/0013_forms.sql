-- Forms, which the intake surface calls intake bots, and what was submitted through them.
CREATE TABLE control.forms (
    account     text        NOT NULL REFERENCES control.accounts,
    id          uuid        NOT NULL,
    public_id   text        NOT NULL UNIQUE,
    version     bigint      NOT NULL,
    name        text        NOT NULL,
    description text,
    fields      text        NOT NULL,
    status      text        NOT NULL CHECK (status IN ('draft', 'published')),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    deleted_at  timestamptz,
    PRIMARY KEY (account, id)
);
CREATE INDEX ON control.forms (account, id DESC) WHERE deleted_at IS NULL;
COMMENT ON COLUMN control.forms.public_id IS 'names it in the address of its public page';
COMMENT ON COLUMN control.forms.fields IS 'JSON, checked when it was saved';

-- A submission is kept here as long as its form. Its row and the event about it belong together: `told_at` is set when
-- the event is on the log, and a crash in between writes it again, under the same id.
CREATE TABLE control.submissions (
    account      text        NOT NULL,
    id           uuid        NOT NULL,
    form         uuid        NOT NULL,
    data         text        NOT NULL,
    submitted_by text,
    created_at   timestamptz NOT NULL,
    told_at      timestamptz,
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, form) REFERENCES control.forms
);
CREATE INDEX ON control.submissions (account, form, id DESC);
CREATE INDEX ON control.submissions (created_at) WHERE told_at IS NULL;
COMMENT ON COLUMN control.submissions.data IS 'JSON, as it was checked against the form';
COMMENT ON COLUMN control.submissions.submitted_by IS 'the API key; null = somebody on the public page';

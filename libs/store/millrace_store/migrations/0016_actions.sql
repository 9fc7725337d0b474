-- Action contracts as registered, every version of each, and what waits for a person's yes.
CREATE TABLE control.actions (
    account       text        NOT NULL REFERENCES control.accounts,
    id            uuid        NOT NULL,
    version       bigint      NOT NULL,
    name          text        NOT NULL,
    contract      bytea       NOT NULL,
    digest        text        NOT NULL,
    signature     text,
    signed_by     uuid,
    sealed_secret text        NOT NULL,
    seal          text        NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    deleted_at    timestamptz,
    PRIMARY KEY (account, id)
);
CREATE UNIQUE INDEX ON control.actions (account, name) WHERE deleted_at IS NULL;
COMMENT ON COLUMN control.actions.version IS 'also when only its secret changed or it was deleted';
COMMENT ON COLUMN control.actions.contract IS 'its RFC 8785 form, without the signature';
COMMENT ON COLUMN control.actions.signature IS 'its author''s, by the key signed_by; null = it was taken over a trusted call';
COMMENT ON COLUMN control.actions.seal IS 'the registry''s own, under the action''s secret';

CREATE TABLE control.action_versions (
    account       text        NOT NULL,
    action        uuid        NOT NULL,
    version       bigint      NOT NULL,
    contract      bytea       NOT NULL,
    digest        text        NOT NULL,
    signature     text,
    signed_by     uuid,
    registered_by text        NOT NULL,
    registered_at timestamptz NOT NULL,
    PRIMARY KEY (account, action, version),
    FOREIGN KEY (account, action) REFERENCES control.actions
);

-- One call that a person is asked about. It is decided once; the call that follows has an id derived from it, so that it
-- is made once whatever crashes between the decision and the log.
CREATE TABLE control.confirmations (
    account        text        NOT NULL REFERENCES control.accounts,
    id             uuid        NOT NULL,
    action         uuid        NOT NULL,
    name           text        NOT NULL,
    version        bigint      NOT NULL,
    digest         text        NOT NULL,
    params         bytea       NOT NULL,
    arguments_hash text        NOT NULL,
    prompt         text,
    roles          text[]      NOT NULL,
    requested_by   text        NOT NULL,
    requested_role text        NOT NULL,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    state          text        NOT NULL CHECK (state IN ('pending', 'confirmed', 'refused')),
    decided_by     text,
    decided_role   text,
    decided_at     timestamptz,
    PRIMARY KEY (account, id)
);
COMMENT ON COLUMN control.confirmations.arguments_hash IS
    'of account, action, contract to the letter and parameters to the letter: the yes holds for these alone';

-- What was asked, decided and done, by whom, and what came of it: made of the topic `audit`, which is kept for ever, as
-- this is. Nothing here is ever changed or dropped.
CREATE TABLE read.audit (
    account       text             NOT NULL,
    id            uuid             NOT NULL,
    at            timestamptz      NOT NULL,
    kind          text             NOT NULL,
    actor         text             NOT NULL,
    role          text,
    action        text,
    version       bigint,
    run           text,
    confirmation  text,
    prompt        text,
    rendered      text,
    response      text,
    outcome       text,
    error_code    text,
    error_message text,
    duration_ms   double precision,
    params        bytea,
    result        bytea,
    PRIMARY KEY (account, id)
);
CREATE INDEX ON read.audit (account, at DESC, id DESC);
COMMENT ON COLUMN read.audit.rendered IS 'the prompt as it was put to what resolved it';
COMMENT ON COLUMN read.audit.response IS 'what that said, as it was said';
